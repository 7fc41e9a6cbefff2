-- I-1, I-2: orders are judged against counters that nobody has locked.
\ir _cut.sql
select t.cut('app.orders_place', 'for no key update');
alter table app.ticket_types drop constraint ticket_types_quota_check;
alter table app.events drop constraint events_capacity_check;
