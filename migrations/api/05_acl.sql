-- Whose a resource is: one view per resource, used by the functions below and
-- by the tests that walk every row with every role (I-41).

create or replace view api.acl_event as
select e.id, e.organizer_id as user_id, r.relation
from app.events e
cross join (values ('manage'), ('scan')) r (relation)
union
select s.event_id, s.user_id, r.relation
from app.event_staff s
join (values ('manage', 'manage'), ('manage', 'scan'), ('scan', 'scan'))
    r (has, relation) on r.has = s.relation;

create or replace view api.acl_ticket_type as
select t.id, a.user_id, a.relation
from app.ticket_types t
join api.acl_event a on a.id = t.event_id;

create or replace view api.acl_promo_code as
select p.id, a.user_id, a.relation
from app.promo_codes p
join api.acl_event a on a.id = p.event_id;

create or replace view api.acl_order as
select o.id, o.buyer_id as user_id, 'owner' as relation
from app.orders o
union all
select o.id, a.user_id, a.relation
from app.orders o
join api.acl_event a on a.id = o.event_id and a.relation = 'manage';

create or replace view api.acl_ticket as
select t.id, t.holder_id as user_id, 'owner' as relation
from app.tickets t
union all
select t.id, a.user_id, a.relation
from app.tickets t
join api.acl_event a on a.id = t.event_id and a.relation = 'manage';

create or replace view api.acl_device as
select d.id, a.user_id, a.relation
from app.scanner_devices d
join api.acl_event a on a.id = d.event_id and a.relation = 'manage';

-- admin passes everywhere
create or replace function app.event_can(ctx api.ctx, event uuid,
    relation text)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (select from app.events e where e.id = event)
        and (app.is_admin(ctx) or exists (
            select from app.events e
            where e.id = event and e.organizer_id = (ctx).actor)
        or exists (
            select from app.event_staff s
            where s.event_id = event and s.user_id = (ctx).actor
                and s.relation in ('manage', event_can.relation)));
end $$;
