-- orders.create and events.register: seats held by the database's clock.
--
-- Placing is set-based over a batch of requests (decision 7): locks in key
-- order, every element judged against what its neighbors left, all accepted
-- ones written at once.

-- Refusal of one element of a batch.
create or replace function app.refusal(ord int, code text,
    extra json default null)
returns api.answers
language sql immutable
as $$
    select row(ord, f.status, f.body, null, null, null, null)::api.answers
    from app.fail(code, extra) f
$$;

-- Arrays in, one row per ord out.  Elements are judged in their order against
-- counters that this transaction has locked, so a refused one takes nothing
-- from its neighbours; then all that were accepted are written at once.
create or replace function app.orders_place(ords int[], ctxs api.ctx[],
    bodies jsonb[], codes jsonb[], registration boolean)
returns setof api.answers
language plpgsql
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan -- planned once, not per batch
as $$
declare
    v_now constant timestamptz := app.now();
    v_cap constant int := app.setting_s('hold_max_orders', 3);
    v_proved constant boolean :=
        app.setting('require_verified_email', 'off') <> 'off';
    v_provider text;
    v_url text;
    v_until timestamptz;
    v_any_promo boolean;
    v_tight uuid[]; -- events whose seats may not do

    -- lines of all elements, by element and line; duplicates are merged
    l_elem int[];
    l_type uuid[];
    l_qty int[];
    l_k int[];                    -- place in the type arrays, or null
    l_n int;

    -- ticket types and events, locked, sorted by id
    t_id uuid[]; t_event uuid[]; t_name text[]; t_price bigint[];
    t_left int[]; t_min int[]; t_max int[]; t_sale boolean[]; t_e int[];
    t_taken int[];
    e_id uuid[]; e_left int[]; e_open boolean[]; e_currency text[];
    e_title text[]; e_fresh boolean[]; e_taken int[];

    -- promo codes, locked
    p_id uuid[]; p_event uuid[]; p_code text[]; p_kind text[];
    p_value bigint[]; p_left int[]; p_per_user int[]; p_ok boolean[];
    p_taken int[];
    p_used text[] := '{}'::text[]; -- promo and user, of this batch

    -- accepted orders and their lines
    o_ord int[] := '{}'::int[];
    o_elem int[] := '{}'::int[];
    o_id uuid[] := '{}'::uuid[];
    o_e int[] := '{}'::int[];
    o_buyer uuid[] := '{}'::uuid[];
    o_sub bigint[] := '{}'::bigint[];
    o_disc bigint[] := '{}'::bigint[];
    o_promo uuid[] := '{}'::uuid[];
    o_code text[] := '{}'::text[];
    o_lang text[] := '{}'::text[];
    o_ip text[] := '{}'::text[];
    o_request text[] := '{}'::text[];
    o_key uuid[] := '{}'::uuid[];
    o_reply text[] := '{}'::text[];
    i_o int[] := '{}'::int[];
    i_line int[] := '{}'::int[];
    i_k int[] := '{}'::int[];
    i_qty int[] := '{}'::int[];
    i_disc bigint[] := '{}'::bigint[];

    v_a int := 1; v_b int; v_k int; v_e int; v_p int;
    v_qty int; v_sub bigint; v_disc bigint; v_rest bigint; v_room bigint;
    v_left int;
    v_bad text; v_extra json; v_code text; v_actor uuid;
    v_ctx api.ctx; v_order uuid; v_lines bigint[]; v_n int;
begin
    v_until := v_now + make_interval(secs => app.setting_s('hold_ttl', 900));
    v_provider := app.setting('payment_provider');
    v_url := app.setting('public_url');

    -- 1. lines
    select array_agg(x.elem order by x.elem, x.line),
        array_agg(x.type order by x.elem, x.line),
        array_agg(x.qty order by x.elem, x.line)
    into l_elem, l_type, l_qty
    from (
        select b.elem, (i.item->>'ticket_type_id')::uuid as type,
            sum(coalesce((i.item->>'quantity')::int, 1))::int as qty,
            min(i.line) as line
        from unnest(bodies) with ordinality b (body, elem)
        cross join lateral jsonb_array_elements(b.body->'items')
            with ordinality i (item, line)
        group by b.elem, (i.item->>'ticket_type_id')::uuid) x;
    l_n := coalesce(cardinality(l_elem), 0);

    select bool_or(b.body->>'promo_code' is not null) into v_any_promo
    from unnest(bodies) b (body);

    -- Where seats or a code may be short, holds that ran out decide.  Somebody
    -- may be moving their orders: that is waited for now, while nothing is
    -- locked.  A few seats more than are wanted, as others buy, too.
    select array_agg(distinct t.event_id) into v_tight
    from app.ticket_types t
    join app.events e on e.id = t.event_id
    where t.id = any (l_type) and (v_any_promo or registration
        or least(t.quota - t.sold, e.capacity - e.sold) - 64 < (
            select sum(x.qty) from unnest(l_qty) x (qty)));

    if v_tight is not null then
        perform app.holds_wait(v_tight);
    end if;

    -- a lapsed registration must not stand in the way of the next one
    if registration then
        perform app.holds_release(t.event_id)
        from app.ticket_types t
        where t.id = any (l_type);
    end if;

    -- 2. locks: events, then types, each by id
    select array_agg(e.id), array_agg(e.capacity - e.sold),
        array_agg(e.status = 'published' and e.ends_at > v_now),
        array_agg(e.currency), array_agg(e.title), array_agg(false),
        array_agg(0)
    into e_id, e_left, e_open, e_currency, e_title, e_fresh, e_taken
    from (
        select e.*
        from app.events e
        where e.id in (
            select t.event_id from app.ticket_types t
            where t.id = any (l_type))
        order by e.id
        for no key update) e;

    select array_agg(t.id), array_agg(t.event_id), array_agg(t.name),
        array_agg(t.price_cents), array_agg(t.quota - t.sold),
        array_agg(t.min_per_order), array_agg(t.max_per_order),
        array_agg((t.sales_start is null or t.sales_start <= v_now)
            and (t.sales_end is null or t.sales_end > v_now)),
        array_agg(array_position(e_id, t.event_id)), array_agg(0)
    into t_id, t_event, t_name, t_price, t_left, t_min, t_max, t_sale, t_e,
        t_taken
    from (
        select t.*
        from app.ticket_types t
        where t.id = any (l_type)
        order by t.id
        for no key update) t;

    for v_j in 1 .. l_n loop
        l_k[v_j] := array_position(t_id, l_type[v_j]);
    end loop;

    if v_any_promo then
        select array_agg(c.id), array_agg(c.event_id), array_agg(c.code),
            array_agg(c.kind), array_agg(c.value),
            array_agg(c.max_uses - c.used), array_agg(c.per_user),
            array_agg((c.valid_from is null or c.valid_from <= v_now)
                and (c.valid_until is null or c.valid_until > v_now)),
            array_agg(0)
        into p_id, p_event, p_code, p_kind, p_value, p_left, p_per_user, p_ok,
            p_taken
        from (
            select c.*
            from app.promo_codes c
            where c.event_id = any (e_id) and c.code in (
                select upper(btrim(b.body->>'promo_code'))
                from unnest(bodies) b (body))
            order by c.id
            for no key update) c;
    end if;

    perform app.pause('orders_place');

    -- 3. judge, element by element
    for v_i in 1 .. cardinality(ords) loop
        v_bad := null;
        v_extra := null;
        v_ctx := ctxs[v_i];
        v_b := v_a;
        while v_b <= l_n and l_elem[v_b] = v_i loop
            v_b := v_b + 1;
        end loop;
        -- lines v_a .. v_b - 1 are its
        v_k := l_k[v_a];
        v_e := case when v_b > v_a and v_k is not null then t_e[v_k] end;
        v_sub := 0;
        v_disc := 0;
        v_p := null;
        v_code := upper(btrim(bodies[v_i]->>'promo_code'));

        if v_e is null then
            v_bad := 'NOT_FOUND';
        end if;

        for v_j in v_a .. v_b - 1 loop
            exit when v_bad is not null;
            v_k := l_k[v_j];
            if v_k is null then
                v_bad := 'NOT_FOUND';
                v_extra := json_build_object('ticketTypeId', l_type[v_j]);
            elsif t_e[v_k] <> v_e then
                v_bad := 'VALIDATION_FAILED';
                v_extra := '{"errors":[{"pointer":"/items","code":"mixed",'
                    '"detail":"must all belong to one event"}]}';
            elsif not e_open[v_e] or not t_sale[v_k] then
                v_bad := 'NOT_ON_SALE';
                v_extra := json_build_object('ticketTypeId', t_id[v_k]);
            elsif l_qty[v_j] < t_min[v_k] or l_qty[v_j] > t_max[v_k] then
                v_bad := 'ORDER_LIMIT';
                v_extra := json_build_object('ticketTypeId', t_id[v_k],
                    'minPerOrder', t_min[v_k], 'maxPerOrder', t_max[v_k]);
            end if;
            v_sub := v_sub + coalesce(t_price[v_k] * l_qty[v_j], 0);
        end loop;

        -- seats; before saying no, holds that ran out are given back
        for v_try in 1 .. 2 loop
            exit when v_bad is not null;
            v_left := null;
            v_qty := 0;
            v_k := null;
            for v_j in v_a .. v_b - 1 loop
                v_qty := v_qty + l_qty[v_j];
                if l_qty[v_j] > t_left[l_k[v_j]]
                    and (v_left is null or t_left[l_k[v_j]] < v_left)
                then
                    v_k := l_k[v_j];
                    v_left := t_left[v_k];
                end if;
            end loop;
            if v_qty > e_left[v_e] then
                v_k := coalesce(v_k, l_k[v_a]);
                v_left := least(v_left, e_left[v_e]);
            end if;

            v_p := null;
            if v_left is null and v_code is not null then
                for v_j in 1 .. coalesce(cardinality(p_id), 0) loop
                    if p_code[v_j] = v_code and p_event[v_j] = e_id[v_e] then
                        v_p := v_j;
                    end if;
                end loop;
                if v_p is null or not p_ok[v_p] then
                    v_bad := 'PROMO_INVALID';
                    exit;
                end if;
            end if;

            if v_left is null and (v_p is null or p_left[v_p] > 0) then
                exit; -- enough of everything
            end if;

            if v_try = 1 and not e_fresh[v_e] then
                e_fresh[v_e] := true;
                if app.holds_settle(e_id[v_e]) > 0 then
                    e_left[v_e] := (
                        select e.capacity - e.sold - e_taken[v_e]
                        from app.events e
                        where e.id = e_id[v_e]);
                    for v_j in 1 .. cardinality(t_id) loop
                        if t_e[v_j] = v_e then
                            t_left[v_j] := (
                                select t.quota - t.sold - t_taken[v_j]
                                from app.ticket_types t
                                where t.id = t_id[v_j]);
                        end if;
                    end loop;
                    for v_j in 1 .. coalesce(cardinality(p_id), 0) loop
                        p_left[v_j] := (
                            select c.max_uses - c.used - p_taken[v_j]
                            from app.promo_codes c
                            where c.id = p_id[v_j]);
                    end loop;
                    continue;
                end if;
            end if;

            if v_left is not null then
                v_bad := 'SOLD_OUT';
                v_extra := json_build_object('remaining', greatest(v_left, 0),
                    'ticketTypeId', t_id[v_k]);
            else
                v_bad := 'PROMO_EXHAUSTED';
            end if;
            exit;
        end loop;

        v_actor := (v_ctx).actor;

        if v_bad is null and v_p is not null then
            select count(*) into v_n
            from app.promo_redemptions r
            where r.promo_id = p_id[v_p] and r.user_id = v_actor
                and not r.released;
            for v_j in 1 .. cardinality(p_used) loop
                v_n := v_n + (p_used[v_j]
                    = p_id[v_p]::text || v_actor::text)::int;
            end loop;
            if v_n >= p_per_user[v_p] then
                v_bad := 'PROMO_EXHAUSTED';
                v_extra := json_build_object('detail',
                    'you have used this code');
            end if;
        end if;

        -- nobody has told the database yet who takes the money
        if v_bad is null and v_sub > 0
            and (v_provider is null or v_url is null)
        then
            v_bad := 'STARTING';
        end if;

        if v_bad is null and registration and exists (
            select from app.orders o
            where o.event_id = e_id[v_e] and o.registrant_id = v_actor
                and o.registration and o.holds
                and app.order_status(o.status, o.reserved_until) <> 'expired')
        then
            v_bad := 'ALREADY_REGISTERED';
        end if;

        if v_bad is not null then
            return next app.refusal(ords[v_i], v_bad, v_extra);
            v_a := v_b;
            continue;
        end if;

        -- accepted: discount per line, rounded once
        v_lines := '{}';
        if v_p is not null then
            if p_kind[v_p] = 'percent' then
                for v_j in v_a .. v_b - 1 loop
                    v_lines := v_lines || (t_price[l_k[v_j]] * l_qty[v_j]
                        * p_value[v_p] + 50) / 100;
                    v_disc := v_disc + v_lines[v_j - v_a + 1];
                end loop;
            else
                v_disc := least(p_value[v_p], v_sub);
                v_rest := v_disc;
                for v_j in v_a .. v_b - 1 loop
                    v_lines := v_lines || case when v_sub = 0 then 0 else
                        (v_disc::numeric * t_price[l_k[v_j]] * l_qty[v_j]
                            / v_sub)::numeric end::bigint;
                    v_lines[v_j - v_a + 1] := least(v_rest,
                        v_lines[v_j - v_a + 1],
                        t_price[l_k[v_j]] * l_qty[v_j]);
                    v_rest := v_rest - v_lines[v_j - v_a + 1];
                end loop;
                -- cents that rounding left go where there is room
                for v_j in v_a .. v_b - 1 loop
                    v_n := v_j - v_a + 1;
                    v_room := least(v_rest, t_price[l_k[v_j]] * l_qty[v_j]
                        - v_lines[v_n]);
                    v_lines[v_n] := v_lines[v_n] + v_room;
                    v_rest := v_rest - v_room;
                end loop;
            end if;
        end if;

        -- what costs money is for addresses that are known to be right
        if v_proved and v_sub > v_disc and not exists (
            select from app.users u
            where u.id = v_actor and u.email_verified_at is not null)
        then
            return next app.refusal(ords[v_i], 'EMAIL_NOT_VERIFIED');
            v_a := v_b;
            continue;
        end if;

        -- nobody holds a whole event without paying
        if v_cap > 0 and v_sub > v_disc then
            select count(*) into v_n
            from app.orders o
            where o.buyer_id = v_actor and o.event_id = e_id[v_e]
                and o.status in ('reserved', 'awaiting_payment',
                    'payment_failed')
                and o.reserved_until > v_now;
            for v_j in 1 .. cardinality(o_id) loop
                v_n := v_n + (o_buyer[v_j] = v_actor and o_e[v_j] = v_e
                    and o_sub[v_j] > o_disc[v_j])::int;
            end loop;
            if v_n >= v_cap then
                return next app.refusal(ords[v_i], 'TOO_MANY_HOLDS',
                    json_build_object('maxOpenOrders', v_cap, 'detail',
                        'pay or cancel what you have ordered first'));
                v_a := v_b;
                continue;
            end if;
        end if;

        if v_p is not null then
            p_left[v_p] := p_left[v_p] - 1;
            p_taken[v_p] := p_taken[v_p] + 1;
            p_used := p_used || (p_id[v_p]::text || v_actor::text);
        end if;

        v_order := app.uuid7();
        o_ord := o_ord || ords[v_i];
        o_elem := o_elem || v_i;
        o_id := o_id || v_order;
        o_e := o_e || v_e;
        o_buyer := o_buyer || v_actor;
        o_sub := o_sub || v_sub;
        o_disc := o_disc || v_disc;
        o_promo := o_promo || case when v_p is not null then p_id[v_p] end;
        o_code := o_code || case when v_p is not null then p_code[v_p] end;
        o_lang := o_lang || coalesce((v_ctx).lang, 'en');
        o_ip := o_ip || (v_ctx).ip;
        o_request := o_request || (v_ctx).request_id;
        o_key := o_key || (v_ctx).api_key;
        o_reply := o_reply || (v_ctx).reply_to;

        v_n := cardinality(o_id);
        for v_j in v_a .. v_b - 1 loop
            v_k := l_k[v_j];
            t_left[v_k] := t_left[v_k] - l_qty[v_j];
            t_taken[v_k] := t_taken[v_k] + l_qty[v_j];
            e_left[v_e] := e_left[v_e] - l_qty[v_j];
            e_taken[v_e] := e_taken[v_e] + l_qty[v_j];
            i_o := i_o || v_n;
            i_line := i_line || (v_j - v_a + 1);
            i_k := i_k || v_k;
            i_qty := i_qty || l_qty[v_j];
            i_disc := i_disc || coalesce(v_lines[v_j - v_a + 1], 0);
        end loop;
        v_a := v_b;
    end loop;

    if cardinality(o_id) = 0 then
        return;
    end if;

    -- 4. write: counters, then everything else in one statement
    update app.events e
    set sold = e.sold + x.n
    from unnest(e_id, e_taken) x (id, n)
    where e.id = x.id and x.n > 0;

    update app.ticket_types t
    set sold = t.sold + x.n
    from unnest(t_id, t_taken) x (id, n)
    where t.id = x.id and x.n > 0;

    if v_any_promo then
        update app.promo_codes c
        set used = c.used + x.n
        from unnest(p_id, p_taken) x (id, n)
        where c.id = x.id and x.n > 0;
    end if;

    return query
    with o as (
        select x.*, x.sub - x.disc as total, x.sub = x.disc as free,
            case when x.sub = x.disc then 'paid'
                when v_provider = 'test' then 'awaiting_payment'
                else 'reserved' end as status,
            case when x.sub > x.disc then app.uuid7() end as payment_id,
            btrim(u.first_name || ' ' || u.last_name) as buyer_name
        from unnest(o_ord, o_elem, o_id, o_e, o_buyer, o_sub, o_disc, o_promo,
            o_code, o_lang, o_ip, o_request, o_key, o_reply) with ordinality
            x (ord, elem, id, e, buyer, sub, disc, promo, code, lang, ip,
                request, key, reply, n)
        left join app.users u on u.id = x.buyer),
    i as (
        select x.*, o.id as order_id, o.free, o.buyer, o.buyer_name, o.elem,
            t_id[x.k] as type, t_price[x.k] as price, t_name[x.k] as name,
            t_event[x.k] as event_id,
            t_price[x.k] * x.qty - x.disc as total
        from unnest(i_o, i_line, i_k, i_qty, i_disc)
            x (n, line, k, qty, disc)
        join o on o.n = x.n),
    c as ( -- the edge's codes, counted per type
        select b.elem, k.type, k.id, k.code,
            row_number() over (partition by b.elem, k.type
                order by k.id) as seat
        from unnest(o_elem) b (elem)
        cross join lateral (
            select (j.item->>'ticket_type_id')::uuid as type,
                (j.item->>'id')::uuid as id, j.item->>'code' as code
            from jsonb_array_elements(codes[b.elem]) j (item)) k),
    s as ( -- a code without a seat is not stored; a seat without one is a
           -- bug and fails by NOT NULL
        select i.*, c.id as ticket_id, c.code,
            i.total / i.qty + (s.seat <= i.total % i.qty)::int as seat_price
        from i
        cross join lateral generate_series(1, i.qty) s (seat)
        left join c on c.elem = i.elem and c.type = i.type
            and c.seat = s.seat),
    new_orders as (
        insert into app.orders (id, buyer_id, event_id, status, holds,
            subtotal_cents, discount_cents, total_cents, currency, promo_id,
            reserved_until, lang, registration, registrant_id, created_at,
            updated_at, paid_at)
        select o.id, o.buyer, e_id[o.e], o.status, true, o.sub, o.disc,
            o.total, e_currency[o.e], o.promo,
            case when not o.free then v_until end, o.lang, registration,
            case when registration then o.buyer end, v_now, v_now,
            case when o.free then v_now end
        from o),
    new_items as (
        insert into app.order_items (order_id, line, ticket_type_id, quantity,
            unit_price_cents, discount_cents, line_total_cents, name)
        select i.order_id, i.line, i.type, i.qty, i.price, i.disc, i.total,
            i.name
        from i),
    new_tickets as (
        insert into app.tickets (id, order_id, line, event_id, ticket_type_id,
            holder_id, holder_name, price_cents, code, state, created_at,
            updated_at)
        select s.ticket_id, s.order_id, s.line, s.event_id, s.type, s.buyer,
            s.buyer_name, s.seat_price, s.code,
            case when s.free then 'valid' else 'reserved' end, v_now, v_now
        from s),
    new_redemptions as (
        insert into app.promo_redemptions (order_id, promo_id, user_id,
            created_at)
        select o.id, o.promo, o.buyer, v_now
        from o
        where o.promo is not null),
    new_payments as (
        insert into app.payments (id, order_id, provider, amount_cents,
            currency, intent_id, checkout_url, created_at, updated_at)
        select o.payment_id, o.id, v_provider, o.total, e_currency[o.e],
            case when v_provider = 'test'
                then 'pi_test_' || replace(o.payment_id::text, '-', '') end,
            case when v_provider = 'test'
                then v_url || '/pay/' || o.id end,
            v_now, v_now
        from o
        where not o.free
        returning app.payments.*),
    new_tasks as (
        insert into queue.outbox as q (kind, payload, run_at, reply_to,
            created_at)
        select 'mail.send', jsonb_build_object('template', 'order_paid',
            'order_id', o.id), v_now, null, v_now
        from o
        where o.free
        union all
        select 'order.expire', jsonb_build_object('order_id', o.id), v_until,
            null, v_now
        from o
        where not o.free
        union all
        select 'payment.create', jsonb_build_object('order_id', o.id,
            'payment_id', o.payment_id), v_now, o.reply, v_now
        from o
        where not o.free and v_provider <> 'test'
        returning q.id, q.kind, (q.payload->>'order_id')::uuid as order_id),
    new_audit as (
        insert into app.audit_log (at, actor, action, resource, resource_id,
            changes, ip, request_id, api_key, digest)
        select v_now, o.buyer, 'order.create', 'order', o.id::text, o.changes,
            o.ip, o.request, o.key,
            app.audit_digest(v_now, o.buyer, null, 'order.create', 'order',
                o.id::text, o.changes, o.ip, o.request, null, o.key)
        from (
            select o.*, jsonb_build_object('status', o.status,
                'total_cents', o.total, 'event_id', e_id[o.e]) as changes
            from o) o)
    select o.ord, 201,
        json_build_object(
            'id', o.id,
            'status', o.status,
            'eventId', e_id[o.e],
            'eventTitle', e_title[o.e],
            'buyerId', o.buyer,
            'subtotalCents', o.sub,
            'discountCents', o.disc,
            'totalCents', o.total,
            'currency', e_currency[o.e],
            'promoCode', o.code,
            'reservedUntil', case when not o.free then app.ts(v_until) end,
            'items', lines.body,
            'tickets', coalesce(seats.body, '[]'),
            'paymentDetails', (select app.payment_json(p.*)
                from new_payments p
                where p.order_id = o.id),
            'refundedCents', 0,
            'createdAt', app.ts(v_now),
            'paidAt', case when o.free then app.ts(v_now) end,
            'endedAt', null),
        null::json, null::text, app.wake(),
        (select q.id from new_tasks q
            where q.order_id = o.id and q.kind = 'payment.create')
    from o
    join (
        select i.n, json_agg(json_build_object(
            'ticketTypeId', i.type,
            'name', i.name,
            'quantity', i.qty,
            'unitPriceCents', i.price,
            'discountCents', i.disc,
            'lineTotalCents', i.total) order by i.line) as body
        from i
        group by i.n) lines on lines.n = o.n
    left join (
        select s.n, json_agg(json_build_object(
            'id', s.ticket_id,
            'code', s.code,
            'state', 'valid',
            'ticketTypeId', s.type,
            'ticketTypeName', s.name,
            'holderName', s.buyer_name,
            'priceCents', s.seat_price) order by s.line, s.ticket_id) as body
        from s
        where s.free
        group by s.n) seats on seats.n = o.n;
end $$;

create or replace function api.orders_create(ords int[], ctxs api.ctx[],
    bodies jsonb[], codes jsonb[])
returns setof api.answers
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select * from app.orders_place(ords, ctxs, bodies, codes, false);
end $$;


-- ---- C-12: register = an order of one ticket of the default type ----

-- The default type: the first by the organizer's own order of which one can be
-- had; if there is none, one whose refusal says why.
create or replace function api.events_register_begin(ctx api.ctx, id uuid)
returns table (status int, body json, ticket_type_id uuid)
language plpgsql stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_type uuid;
    v_answer api.answer;
begin
    if not exists (
        select from app.events e
        where e.id = events_register_begin.id and e.status <> 'draft')
    then
        v_answer := app.fail('NOT_FOUND');
    else
        select s.id into v_type
        from app.type_stock s
        join app.ticket_types t on t.id = s.id
        where s.event_id = events_register_begin.id and s.on_sale
        order by t.min_per_order = 1 and s.remaining > 0 desc,
            t.min_per_order = 1 desc, t.sort, t.id
        limit 1;

        if v_type is null then
            v_answer := app.fail('NOT_ON_SALE');
        end if;
    end if;

    return query select v_answer.status, v_answer.body, v_type;
end $$;

create or replace function api.events_register(ctx api.ctx, id uuid,
    ticket_type_id uuid, codes jsonb)
returns api.answer
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select row(a.status, a.body, a.meta, a.etag, a.emit, a.wait)::api.answer
        from app.orders_place(array[0], array[ctx],
            array[jsonb_build_object('items', jsonb_build_array(
                jsonb_build_object('ticket_type_id', ticket_type_id,
                    'quantity', 1)))],
            array[codes], true) a);
end $$;
