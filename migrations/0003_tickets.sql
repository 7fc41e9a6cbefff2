-- Events, ticket types, orders, payments, tickets, admission.
--
-- Counters: ticket_types.sold and events.sold count every seat that an order
-- holds or owns; check constraints are the backstop, conditional updates
-- under row locks the rule.  Locks are taken in one order everywhere:
-- order, event, ticket types by id, promo code, payment, tickets by id.

create table app.events (
    id            uuid not null,
    organizer_id  uuid not null,
    title         text not null,
    description   text,
    starts_at     timestamptz not null,
    ends_at       timestamptz not null,
    timezone      text not null,
    location      text,
    online_link   text,
    banner_image_url text,
    capacity      int,
    sold          int not null default 0,
    currency      text not null,
    reentry       boolean not null default false,
    status        text not null default 'draft',
    version       int not null default 1,
    published_at  timestamptz,
    cancelled_at  timestamptz,
    cancel_reason text,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    search        tsvector generated always as (
        pg_catalog.setweight(pg_catalog.to_tsvector(
            'pg_catalog.simple'::regconfig, title), 'A')
        || pg_catalog.setweight(pg_catalog.to_tsvector(
            'pg_catalog.simple'::regconfig,
            coalesce(location, '') || ' ' || coalesce(description, '')),
            'B')) stored,
    constraint events_pkey primary key (id),
    constraint events_organizer_fkey foreign key (organizer_id)
        references app.users (id),
    constraint events_status_check check (
        status in ('draft', 'published', 'cancelled')),
    constraint events_banner_check check (banner_image_url ~ '^https://'),
    constraint events_times_check check (ends_at > starts_at),
    constraint events_currency_check check (currency ~ '^[A-Z]{3}$'),
    constraint events_sold_check check (sold >= 0),
    constraint events_capacity_check check (
        capacity is null or sold <= capacity)
) with (fillfactor = 70);

create index events_public_idx on app.events (starts_at, id)
    where status = 'published';
create index events_upcoming_idx on app.events (ends_at)
    where status = 'published';
create index events_organizer_idx on app.events (organizer_id, created_at, id);
create index events_search_idx on app.events using gin (search);
create index events_title_idx on app.events
    using gin (title app.gin_trgm_ops);

create table app.event_staff (
    event_id   uuid not null,
    user_id    uuid not null,
    relation   text not null,
    created_at timestamptz not null,
    constraint event_staff_pkey primary key (event_id, user_id),
    constraint event_staff_relation_check check (
        relation in ('scan', 'manage')),
    constraint event_staff_event_fkey foreign key (event_id)
        references app.events (id),
    constraint event_staff_user_fkey foreign key (user_id)
        references app.users (id)
);

create index event_staff_user_idx on app.event_staff (user_id);

create table app.ticket_types (
    id            uuid not null,
    event_id      uuid not null,
    name          text not null,
    description   text,
    price_cents   bigint not null,
    quota         int not null,
    sold          int not null default 0,
    min_per_order int not null default 1,
    max_per_order int not null default 10,
    sales_start   timestamptz,
    sales_end     timestamptz,
    valid_from    timestamptz,
    valid_until   timestamptz,
    sort          int not null default 0,
    version       int not null default 1,
    created_at    timestamptz not null,
    updated_at    timestamptz not null,
    constraint ticket_types_pkey primary key (id),
    constraint ticket_types_event_fkey foreign key (event_id)
        references app.events (id),
    constraint ticket_types_price_check check (
        price_cents between 0 and 100000000000),
    constraint ticket_types_sold_check check (sold >= 0),
    constraint ticket_types_quota_check check (sold <= quota),
    constraint ticket_types_limits_check check (
        min_per_order >= 1 and max_per_order >= min_per_order
        and max_per_order <= 100),
    constraint ticket_types_sales_check check (sales_end > sales_start),
    constraint ticket_types_valid_check check (valid_until > valid_from)
) with (fillfactor = 50);

create index ticket_types_event_idx on app.ticket_types (event_id, sort, id);

create table app.promo_codes (
    id          uuid not null,
    event_id    uuid not null,
    code        text not null, -- upper case
    kind        text not null,
    value       bigint not null, -- percent, or cents per order
    max_uses    int not null,
    used        int not null default 0,
    per_user    int not null default 1,
    valid_from  timestamptz,
    valid_until timestamptz,
    version     int not null default 1,
    created_at  timestamptz not null,
    constraint promo_codes_pkey primary key (id),
    constraint promo_codes_event_fkey foreign key (event_id)
        references app.events (id),
    constraint promo_codes_code_key unique (event_id, code),
    constraint promo_codes_kind_check check (kind in ('percent', 'amount')),
    constraint promo_codes_value_check check (
        value > 0 and (kind <> 'percent' or value <= 100)),
    constraint promo_codes_used_check check (used >= 0),
    constraint promo_codes_max_uses_check check (used <= max_uses),
    constraint promo_codes_valid_check check (valid_until > valid_from)
);

create table app.orders (
    id             uuid not null,
    buyer_id       uuid not null,
    event_id       uuid not null,
    status         text not null,
    holds          boolean not null, -- its seats are counted in sold
    subtotal_cents bigint not null,
    discount_cents bigint not null,
    total_cents    bigint not null,
    currency       text not null,
    promo_id       uuid,
    reserved_until timestamptz,
    lang           text not null,
    registration   boolean not null default false,
    registrant_id  uuid, -- of a registration: who is coming
    version        int not null default 1,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    paid_at        timestamptz,
    ended_at       timestamptz, -- cancelled, expired, wholly refunded
    constraint orders_pkey primary key (id),
    constraint orders_buyer_fkey foreign key (buyer_id)
        references app.users (id),
    constraint orders_event_fkey foreign key (event_id)
        references app.events (id),
    constraint orders_promo_fkey foreign key (promo_id)
        references app.promo_codes (id),
    constraint orders_status_check check (
        status in ('reserved', 'awaiting_payment', 'paid',
            'partially_refunded', 'refunded', 'refund_failed', 'cancelled',
            'expired', 'payment_failed')),
    constraint orders_holds_check check (
        holds = (status in ('reserved', 'awaiting_payment', 'payment_failed',
            'paid', 'partially_refunded'))),
    constraint orders_reserved_check check (
        status not in ('reserved', 'awaiting_payment', 'payment_failed')
        or reserved_until is not null),
    constraint orders_total_check check (
        subtotal_cents >= 0 and discount_cents >= 0 and total_cents >= 0
        and total_cents = subtotal_cents - discount_cents)
) with (fillfactor = 80);

create index orders_buyer_idx on app.orders (buyer_id, created_at, id);
create index orders_event_idx on app.orders (event_id, created_at, id);
-- what a promo code was used for, before it is deleted
create index orders_promo_idx on app.orders (promo_id)
    where promo_id is not null;
-- holds that run out, by event (before a refusal) and by time (sweep)
create index orders_holds_idx on app.orders (event_id, reserved_until)
    where status in ('reserved', 'awaiting_payment', 'payment_failed');
create index orders_due_idx on app.orders (reserved_until)
    where status in ('reserved', 'awaiting_payment', 'payment_failed');
-- how many of one event a buyer holds unpaid
create index orders_open_idx on app.orders (buyer_id, event_id)
    where status in ('reserved', 'awaiting_payment', 'payment_failed');
create unique index orders_registration_key
    on app.orders (event_id, registrant_id)
    where registration and holds;

create table app.order_items (
    order_id         uuid not null,
    line             smallint not null,
    ticket_type_id   uuid not null,
    quantity         int not null, -- seats bought
    refunded         int not null default 0, -- seats given back one by one
    unit_price_cents bigint not null, -- snapshot
    discount_cents   bigint not null,
    line_total_cents bigint not null,
    name             text not null, -- snapshot
    constraint order_items_pkey primary key (order_id, line),
    constraint order_items_order_fkey foreign key (order_id)
        references app.orders (id),
    constraint order_items_type_fkey foreign key (ticket_type_id)
        references app.ticket_types (id),
    constraint order_items_type_key unique (order_id, ticket_type_id),
    constraint order_items_quantity_check check (quantity between 1 and 100),
    constraint order_items_refunded_check check (
        refunded between 0 and quantity),
    constraint order_items_total_check check (
        unit_price_cents >= 0 and discount_cents >= 0
        and line_total_cents >= 0
        and line_total_cents = unit_price_cents * quantity - discount_cents)
);

create index order_items_type_idx on app.order_items (ticket_type_id);

-- sum of the lines is the total: judged at commit, for orders with money
create function app.order_total_check()
returns trigger
language plpgsql
security definer -- at commit the edge's role is back
set search_path = pg_catalog, pg_temp
as $$
begin
    if (select o.total_cents from app.orders o where o.id = new.order_id)
        is distinct from
        (select pg_catalog.sum(i.line_total_cents) from app.order_items i
         where i.order_id = new.order_id)
    then
        raise exception 'order %: lines and total differ', new.order_id
            using errcode = 'check_violation',
                constraint = 'orders_lines_check';
    end if;

    return null;
end $$;

create constraint trigger orders_lines_check
    after insert or update of line_total_cents on app.order_items
    deferrable initially deferred
    for each row when (new.line_total_cents <> 0)
    execute function app.order_total_check();

create table app.promo_redemptions (
    order_id   uuid not null,
    promo_id   uuid not null,
    user_id    uuid not null,
    released   boolean not null default false,
    created_at timestamptz not null,
    constraint promo_redemptions_pkey primary key (order_id),
    constraint promo_redemptions_order_fkey foreign key (order_id)
        references app.orders (id),
    constraint promo_redemptions_promo_fkey foreign key (promo_id)
        references app.promo_codes (id)
);

create index promo_redemptions_user_idx
    on app.promo_redemptions (promo_id, user_id) where not released;

create table app.tickets (
    id             uuid not null,
    order_id       uuid not null,
    line           smallint not null,
    event_id       uuid not null,
    ticket_type_id uuid not null,
    holder_id      uuid not null,
    holder_name    text not null,
    price_cents    bigint not null, -- its share of the line, to the cent
    code           text collate "C" not null,
    generation     smallint not null default 1,
    state          text not null,
    conflict       boolean not null default false,
    admitted_at    timestamptz, -- corrected by the device's offset
    admitted_gate  text,
    admitted_by    uuid, -- device or user
    ended_at       timestamptz, -- cancelled, refunded, expired
    version        int not null default 1,
    created_at     timestamptz not null,
    updated_at     timestamptz not null,
    constraint tickets_pkey primary key (id),
    constraint tickets_order_fkey foreign key (order_id, line)
        references app.order_items (order_id, line),
    constraint tickets_state_check check (
        state in ('reserved', 'valid', 'admitted', 'exited', 'cancelled',
            'refunded', 'expired')),
    constraint tickets_generation_check check (generation between 1 and 255),
    constraint tickets_admitted_check check (
        (state in ('admitted', 'exited')) <= (admitted_at is not null))
) with (fillfactor = 45); -- each row is changed once or twice, in its page:
                          -- a door's update must not touch five indexes

-- the first 28 characters of a code hold the ticket's id (decision 4), so
-- they are as unique as the code and a sixth of its size
create unique index tickets_code_key
    on app.tickets (pg_catalog.left(code, 28));
create index tickets_order_idx on app.tickets (order_id, line);
create index tickets_holder_idx on app.tickets (holder_id, id);
create index tickets_event_idx on app.tickets (event_id, id);

-- codes that are dead although their ticket lives; shipped to devices
create table app.ticket_revocations (
    id          bigint generated always as identity,
    ticket_id   uuid not null,
    event_id    uuid not null,
    generation  smallint not null,
    code_sha256 bytea not null,
    reason      text not null,
    at          timestamptz not null,
    constraint ticket_revocations_pkey primary key (ticket_id, generation)
);

create index ticket_revocations_event_idx
    on app.ticket_revocations (event_id, at);

create table app.ticket_renders (
    ticket_id  uuid not null,
    generation smallint not null,
    format     text not null,
    bytes      bytea not null,
    created_at timestamptz not null,
    constraint ticket_renders_pkey primary key (ticket_id, generation, format),
    constraint ticket_renders_format_check check (format in ('pdf', 'png'))
);

create table app.payments (
    id              uuid not null,
    order_id        uuid not null,
    provider        text not null,
    amount_cents    bigint not null,
    currency        text not null,
    status          text not null default 'pending',
    captured_cents  bigint not null default 0,
    refunded_cents  bigint not null default 0, -- with refunds under way
    disputed        boolean not null default false,
    disputed_at     bigint, -- provider's time of the last dispute event
    intent_id       text,
    session_id      text,
    checkout_url    text,
    client_secret   text,
    expires_at      timestamptz,
    error_code      text,
    error_message   text,
    looked_at       timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint payments_pkey primary key (id),
    constraint payments_order_key unique (order_id),
    constraint payments_order_fkey foreign key (order_id)
        references app.orders (id),
    constraint payments_intent_key unique (provider, intent_id),
    constraint payments_session_key unique (provider, session_id),
    constraint payments_provider_check check (provider in ('test', 'stripe')),
    constraint payments_status_check check (
        status in ('pending', 'failed', 'canceled', 'succeeded',
            'partially_refunded', 'refunded')),
    constraint payments_captured_check check (captured_cents >= 0),
    constraint payments_refunded_check check (
        refunded_cents between 0 and captured_cents)
);

create index payments_pending_idx on app.payments (created_at)
    where status in ('pending', 'failed');

create table app.refunds (
    id                 uuid not null,
    payment_id         uuid, -- none: tickets of a free order, taken back
    order_id           uuid not null,
    amount_cents       bigint not null,
    reason             text not null,
    status             text not null default 'pending',
    provider_refund_id text,
    error_message      text,
    requested_by       uuid,
    ours               boolean not null default true, -- not the provider's page
    mail               boolean not null default false, -- tell the buyer
    looked_at          timestamptz,
    created_at         timestamptz not null,
    updated_at         timestamptz not null,
    constraint refunds_pkey primary key (id),
    constraint refunds_payment_fkey foreign key (payment_id)
        references app.payments (id),
    constraint refunds_amount_check check (
        amount_cents > 0 or amount_cents = 0 and status = 'succeeded'),
    constraint refunds_status_check check (
        status in ('pending', 'succeeded', 'failed'))
);

create index refunds_payment_idx on app.refunds (payment_id);
create index refunds_order_idx on app.refunds (order_id, created_at, id);
create index refunds_pending_idx on app.refunds (created_at)
    where status = 'pending';

create table app.webhook_events (
    provider    text not null,
    event_id    text not null,
    type        text not null,
    created     bigint not null,
    payload     jsonb not null,
    state       text not null default 'stored',
    outcome     text,
    received_at timestamptz not null,
    done_at     timestamptz,
    constraint webhook_events_pkey primary key (provider, event_id),
    constraint webhook_events_state_check check (
        state in ('stored', 'done', 'failed'))
);

create index webhook_events_received_idx on app.webhook_events (received_at);
-- of intents that are not known yet
create index webhook_events_intent_idx on app.webhook_events
    ((payload->'data'->'object'->>'payment_intent'))
    where outcome = 'not ours';

create table app.mail_suppressions (
    email      text not null,
    reason     text not null,
    created_at timestamptz not null,
    constraint mail_suppressions_pkey primary key (email)
);


-- ---- admission ----

create table app.scanner_devices (
    id               uuid not null,
    event_id         uuid not null,
    name             text not null,
    gate             text,
    pair_hash        bytea, -- of the pairing code, until it is used
    pair_expires_at  timestamptz,
    paired_at        timestamptz,
    last_seen_at     timestamptz,
    snapshot_version bigint not null default 0,
    revoked_at       timestamptz,
    created_by       uuid not null,
    created_at       timestamptz not null,
    constraint scanner_devices_pkey primary key (id),
    constraint scanner_devices_event_fkey foreign key (event_id)
        references app.events (id),
    constraint scanner_devices_pair_key unique (pair_hash)
);

create index scanner_devices_event_idx on app.scanner_devices (event_id, id);

create table app.scan_events (
    id            bigint generated always as identity,
    event_id      uuid, -- of the gate; null: not known
    ticket_id     uuid,
    scanner       uuid not null, -- device, or the user who scanned
    nonce         text,
    gate          text,
    direction     text not null,
    verdict       text not null,
    reason        text,
    offline       boolean not null default false,
    conflict      boolean not null default false,
    scanned_at    timestamptz not null, -- corrected: scanned_at + offset
    device_at     timestamptz, -- as the device said it
    offset_ms     bigint,
    admitted_at   timestamptz, -- as it was answered
    admitted_gate text,
    generation    smallint,
    received_at   timestamptz not null,
    constraint scan_events_pkey primary key (id),
    constraint scan_events_direction_check check (
        direction in ('entry', 'exit'))
);

create unique index scan_events_nonce_key
    on app.scan_events (scanner, nonce) where nonce is not null;
create index scan_events_ticket_idx
    on app.scan_events (ticket_id) where ticket_id is not null;
