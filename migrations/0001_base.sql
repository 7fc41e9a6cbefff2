-- The ground: schemas, roles' rights, types that cross to the edge, settings,
-- audit, queue and idempotency.  Applied once by stoa migrate as stoa_owner,
-- in one transaction.  Numbered files only expand; functions and views live
-- in migrations/api/ and are replaced whenever they change.

do $$
declare
    r text;
begin
    foreach r in array array['stoa_edge', 'stoa_worker'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = r) then
            execute pg_catalog.format('create role %I login', r);
        end if;
    end loop;
end $$;

create schema if not exists app;
create schema if not exists queue;
create schema if not exists api;
create schema if not exists task;

-- trigram indexes for search; its operators are never named, only ILIKE is
create extension if not exists pg_trgm with schema app;

revoke all on schema public from public;
revoke all on schema app, queue, api, task from public;

grant usage on schema api to stoa_edge;
grant usage on schema task, queue, app to stoa_worker;

-- What is made from here on belongs to nobody but its owner; the two doors
-- open by schema.
alter default privileges revoke execute on functions from public;
alter default privileges in schema api grant execute on functions to stoa_edge;
alter default privileges in schema api grant select on tables to stoa_edge;
alter default privileges in schema task
    grant execute on functions to stoa_worker;
alter default privileges in schema queue
    grant execute on functions to stoa_worker;


-- ---- types of the wire between edge and database ----

create type api.ctx as (
    actor      uuid,
    roles      text[],
    session    uuid,
    device     uuid,
    ip         text,
    request_id text,
    lang       text,
    reply_to   text,
    event      uuid
);

create type api.answer as (
    status int,
    body   json,
    meta   json,
    etag   text,
    emit   json,
    wait   bigint
);

create type api.answers as (
    ord    int,
    status int,
    body   json,
    meta   json,
    etag   text,
    emit   json,
    wait   bigint
);

-- the same, of a function that prints its JSON itself and vouches for it
create type api.answers_text as (
    ord    int,
    status int,
    body   text,
    meta   json,
    etag   text,
    emit   json,
    wait   bigint
);

create type api.grant as (
    status             int,
    body               json,
    user_id            uuid,
    roles              text[],
    epoch              int,
    sid                uuid,
    counter            bigint,
    refresh_expires_at timestamptz,
    refresh            text,
    emit               json,
    max_age            int  -- seconds of its cookie; null: the browser's own
);

create type api.idem as (
    state  text,
    status int,
    body   json,
    meta   json,
    etag   text,
    at     timestamptz
);


-- ---- settings that SQL reads (rows flagged STOA_CONF_DB) ----

create table app.settings (
    key   text not null,
    value text not null,
    constraint settings_pkey primary key (key)
);


-- ---- audit: rows in the write's own transaction, chained by a sealer ----

create table app.audit_log (
    xid         xid8 not null default pg_catalog.pg_current_xact_id(),
    id          bigint generated always as identity,
    at          timestamptz not null,
    actor       uuid,
    device      uuid,
    action      text not null,
    resource    text not null,
    resource_id text,
    changes     jsonb,
    ip          text,
    request_id  text,
    digest      bytea not null,
    constraint audit_log_pkey primary key (xid, id)
);

-- Newest first, for who reads it, and by time.  What else he filters by has no
-- index, which each admission would pay for.
create index audit_log_id_idx on app.audit_log (id);
create index audit_log_at_idx on app.audit_log using brin (at);

create table app.audit_chain (
    day       date not null,
    n         bigint not null,
    audit_xid xid8 not null,
    audit_id  bigint not null,
    prev_hash bytea not null,
    hash      bytea not null,
    constraint audit_chain_pkey primary key (day, n),
    constraint audit_chain_row_key unique (audit_xid, audit_id)
);

-- everything below this transaction is in the chain
create table app.audit_seal (
    only_row boolean not null default true,
    below    xid8 not null,
    sealed_at timestamptz not null,
    constraint audit_seal_pkey primary key (only_row),
    constraint audit_seal_only_row_check check (only_row)
);

insert into app.audit_seal (below, sealed_at)
values ('0', 'epoch');

create function app.append_only()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '% is append-only', tg_table_name
        using errcode = 'insufficient_privilege';
end $$;

create trigger audit_log_append_only
    before update or delete or truncate on app.audit_log
    for each statement execute function app.append_only();

create trigger audit_chain_append_only
    before update or delete or truncate on app.audit_chain
    for each statement execute function app.append_only();


-- ---- idempotency keys (decision 6) ----

create table app.idempotency (
    scope  text not null,
    key    text not null,
    print  text not null,
    status int not null,
    body   json,
    meta   json,
    etag   text,
    at     timestamptz not null,
    constraint idempotency_pkey primary key (scope, key)
);

create index idempotency_at_idx on app.idempotency (at);


-- ---- queue: outbox, once-only anchors, history, schedules ----

create table queue.outbox (
    id         bigint generated always as identity,
    kind       text not null,
    payload    jsonb not null,
    run_at     timestamptz not null,
    uniq       text,
    debounce   text,   -- calls of one key become one run, of the last of them
    tenant     text,   -- who shares with whom: turns, limits per tenant
    reply_to   text,
    state      smallint not null default 0, -- 0 waiting, 1 sent, 2 dead,
                                            -- 3 waits for other rows
    tries      int not null default 0,
    sent_at    timestamptz,
    last_error text,
    parent     bigint, -- the row that waits for this one
    awaits     int not null default 0, -- rows that this one waits for
    failed     int not null default 0, -- of those, dead
    canceled   boolean not null default false, -- and Redis was not told yet
    created_at timestamptz not null,
    constraint outbox_pkey primary key (id),
    constraint outbox_state_check check (state in (0, 1, 2, 3)),
    constraint outbox_awaits_check check ((awaits > 0) = (state = 3)
        or state = 2)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);

create index outbox_due_idx on queue.outbox (run_at) where state = 0;
create index outbox_sent_idx on queue.outbox (sent_at) where state = 1;
create index outbox_dead_idx on queue.outbox (kind, id) where state = 2;
create index outbox_canceled_idx on queue.outbox (id) where canceled;
create unique index outbox_uniq_key on queue.outbox (uniq)
    where uniq is not null and state <> 2;
create unique index outbox_debounce_key on queue.outbox (debounce)
    where debounce is not null and state = 0;

-- bytes of a provider call, fixed before the first try
create table queue.inbox (
    op         text not null,
    path       text not null,
    body       text not null,
    created_at timestamptz not null,
    constraint inbox_pkey primary key (op)
);

create table queue.history (
    id          bigint not null, -- of the outbox row
    state       text not null,
    kind        text not null,
    payload     jsonb,
    tries       int not null,
    reason      text,
    created_at  timestamptz not null,
    finished_at timestamptz not null,
    constraint history_pkey primary key (id, state),
    constraint history_state_check check (state in ('done', 'dead'))
);

create index history_finished_idx on queue.history (finished_at);

-- what operators asked of a queue; the workers tell Redis
create table queue.controls (
    queue      text not null,
    paused     boolean not null default false,
    most       int, -- of the queue at once; null: its class's
    each       int, -- of one tenant at once; null: its class's
    changed_at timestamptz not null,
    constraint controls_pkey primary key (queue),
    constraint controls_most_check check (most > 0),
    constraint controls_each_check check (each > 0)
);

create table queue.schedules (
    kind    text not null,
    slot    bigint not null, -- of one that runs each so many seconds
    line    text,            -- of cron, with its zone, that next_at is of
    last_at timestamptz,
    next_at timestamptz,
    constraint schedules_pkey primary key (kind)
);
