-- I-7: the door does not ask whether somebody went in with the ticket before.
\ir _cut.sql
select t.cut('api.orders_validate', 'and t.state = ''valid''');
