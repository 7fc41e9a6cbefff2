-- I-7: the door looks at a ticket without locking it.
\ir _cut.sql
select t.cut('api.orders_validate', 'for no key update of t');
