-- Who else may speak for an account: keys of programs, and admins in an
-- account's name.  And accounts that are programs themselves.

alter type api.ctx add attribute acting_as uuid, -- the admin, when one acts
    add attribute api_key uuid;                  -- by which the caller came

alter table app.audit_log
    add column acting_as uuid,
    add column api_key uuid;

-- A service account is a program: no address, no password, only keys.
alter table app.users
    alter column email drop not null,
    alter column password_hash drop not null,
    add column kind text not null default 'person',
    add constraint users_kind_check check (kind in ('person', 'service')),
    add constraint users_service_check check (
        case kind when 'person' then email is not null or status = 'deleted'
            else email is null and pending_email is null
                and password_hash is null end);

-- what admins search accounts by; the same words stand in api.users_list
create index users_search_idx on app.users using gin ((
        coalesce(email, '') || ' ' || first_name || ' ' || last_name)
    app.gin_trgm_ops);
create index users_admin_idx on app.users (id) where 'admin' = any (roles);

-- Keys of programs.  A key and those that replaced it are one family.
create table app.api_keys (
    id           uuid not null,
    owner_id     uuid not null,
    family       uuid not null,
    rotated_from uuid,
    name         text not null,
    prefix       text not null,  -- what lists show of it
    secret_hash  bytea not null, -- SHA-256 of 256 random bits
    scopes       text[] not null,
    life_s       int not null,   -- as it was asked for; its successors' too
    created_by   uuid,           -- null: the operator's command line
    created_at   timestamptz not null,
    expires_at   timestamptz not null,
    last_used_at timestamptz,
    last_used_ip text,
    revoked_at   timestamptz,
    reason       text,
    reminded_at  timestamptz,    -- that it ends
    constraint api_keys_pkey primary key (id),
    constraint api_keys_owner_fkey foreign key (owner_id)
        references app.users (id),
    constraint api_keys_rotated_from_fkey foreign key (rotated_from)
        references app.api_keys (id) on delete set null,
    constraint api_keys_secret_check check (
        pg_catalog.octet_length(secret_hash) = 32),
    -- what an edge keeps of one
    constraint api_keys_scopes_check check (
        pg_catalog.cardinality(scopes) between 1 and 32
        and pg_catalog.octet_length(
            pg_catalog.array_to_string(scopes, ' ')) <= 512),
    constraint api_keys_life_check check (life_s between 1 and 31622400)
) with (fillfactor = 80);

create index api_keys_owner_idx on app.api_keys (owner_id, created_at);
create index api_keys_rotated_from_idx on app.api_keys (rotated_from)
    where rotated_from is not null;
