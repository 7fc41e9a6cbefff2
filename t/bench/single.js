/*
 * The same functions called the way a server without batching would: one
 * call, one transaction, by pgbench with 32 clients and prepared statements.
 * The door's script looks its code up by an index first, some 5 us.
 */

const CTX = (actor, roles) => `row('${actor}'::uuid, '{${roles}}'::text[], `
  + `null::uuid, null::uuid, '127.0.0.1', 'bench', 'en', null, null::uuid, `
  + `null::uuid, null::uuid)`
  + `::api.ctx`;

export const admitScript = (actor, event) => `
select a.status from api.orders_validate(array[0],
  array[(select code from public.bench_codes
    where n = (select nextval('public.bench_seq')))],
  array['${actor}'::uuid], array['{admin,member}'], null::uuid[],
  null::uuid[], array['127.0.0.1'], array['bench'], array['${event}'::uuid], array[null::text], array[null::text],
  array[null::text], array[null::text], array[null::text]) a;
`;

export const orderScript = (actor, type) => `
select a.status from api.orders_create(array[0],
  array[${CTX(actor, 'member')}],
  array['{"items": [{"ticket_type_id": "${type}", "quantity": 1}]}'::jsonb],
  array[jsonb_build_array(jsonb_build_object('ticket_type_id', '${type}',
    'id', gen_random_uuid(), 'code', rpad(upper(md5(random()::text
      || clock_timestamp())), 157, 'A')))]) a;
`;
