-- I-8 through the edge, whose batches start one after the other: what is told
-- to a nonce is looked up well before it is written.
\ir i8.sql
select t.cut('api.orders_validate', 'and r.nonce = j.nonce),',
    'and r.nonce = j.nonce cross join pg_sleep(0.05) z),');
