-- I-8 through the edge.
\ir i8.sql
