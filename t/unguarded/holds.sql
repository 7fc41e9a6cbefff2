-- I-3: holds that ran out do not count while somebody moves their orders.
\ir _cut.sql
select t.cut('app.orders_place', 'perform app.holds_wait(v_tight);', 'null;');
select t.cut('app.orders_place', 'app.holds_settle(', 'app.holds_release(');
