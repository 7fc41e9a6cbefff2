/*
 * The peer: one Fastify process doing the measured rows as a careful team
 * would write them: fast-jwt with its cache, schemas compiled by Fastify, a
 * pg pool, ioredis.  Started by bench.js, which gives it everything by the
 * environment.
 */

import Fastify from "fastify";
import rateLimit from "@fastify/rate-limit";
import { createVerifier } from "fast-jwt";
import pg from "pg";
import Redis from "ioredis";

const { PEER_PORT, PEER_SECRET, PEER_PG, PEER_REDIS, PEER_EVENT } = process.env;

const verify = createVerifier({
    key: PEER_SECRET, algorithms: ["HS256"], cache: 10000,
    allowedAud: "stoa", allowedIss: "stoa",
});
const pool = new pg.Pool({ connectionString: PEER_PG, max: 16 });
const redis = new Redis(PEER_REDIS, { enableAutoPipelining: true });
const app = Fastify({ logger: false });
const revoked = new Set();

function actor(request, reply) {
    const header = request.headers.authorization || "";
    try {
        const claims = verify(header.slice(7));
        if (revoked.has(claims.sid)) {
            throw new Error("revoked");
        }
        return claims;
    } catch {
        reply.code(401).send({ success: false, error: "UNAUTHENTICATED" });
        return null;
    }
}

function envelope(data) {
    return { success: true, data, meta: null, error: null,
        timestamp: new Date().toISOString() };
}

app.get("/api/v1/auth/check", (request, reply) => {
    const claims = actor(request, reply);
    if (claims) {
        reply.header("Cache-Control", "no-store").send(envelope({
            userId: claims.sub, roles: claims.roles, sessionId: claims.sid,
            expiresAt: new Date(claims.exp * 1000).toISOString(),
        }));
    }
});

/* The same behind a limit by verified user, counted in Redis for all nodes. */
await app.register(rateLimit, { global: false, redis });

app.get("/limited/check", {
    onRequest: async (request, reply) => {
        request.claims = actor(request, reply);
        return request.claims ? undefined : reply;
    },
    config: {
        rateLimit: {
            hook: "preHandler", max: 1000000000, timeWindow: "1 minute",
            keyGenerator: (request) => request.claims.sub,
        },
    },
}, (request, reply) => {
    const { claims } = request;
    reply.header("Cache-Control", "no-store").send(envelope({
        userId: claims.sub, roles: claims.roles, sessionId: claims.sid,
        expiresAt: new Date(claims.exp * 1000).toISOString(),
    }));
});

/*
 * The same effect as Stoa's door: the cached verdict first, then the ticket,
 * the scan event and the audit row in one statement and one commit.
 */
const ADMIT = {
    name: "admit",
    text: `with t as (
        update app.tickets set state = 'admitted', admitted_at = now(),
            admitted_by = $3, version = version + 1, updated_at = now()
        where left(code, 28) = left($1, 28) and code = $1 and state = 'valid'
        returning id, event_id, ticket_type_id, admitted_at
    ), s as (
        insert into app.scan_events
            (event_id, ticket_id, scanner, nonce, direction, verdict,
             scanned_at, received_at, admitted_at, generation)
        select event_id, id, $3, $2, 'entry', 'admitted', now(), now(), now(),
            1 from t
    ), a as (
        insert into app.audit_log
            (at, actor, action, resource, resource_id, changes, digest)
        select now(), $3, 'updated', 'ticket', id,
            jsonb_build_object('state', 'admitted'),
            sha256(id::text::bytea) from t
    )
    select id, event_id, ticket_type_id, admitted_at from t`,
};

app.post("/api/v1/orders/validate", {
    schema: {
        body: {
            type: "object",
            required: ["code"],
            additionalProperties: false,
            properties: {
                code: { type: "string", minLength: 1, maxLength: 200 },
                eventId: { type: "string" },
                nonce: { type: "string", maxLength: 64 },
            },
        },
    },
}, async (request, reply) => {
    const claims = actor(request, reply);
    if (!claims) {
        return reply;
    }
    const { code } = request.body;
    const known = await redis.get(`peer:${code}`);
    if (known) {
        return envelope({ verdict: "already_used", admittedAt: known });
    }
    const { rows } = await pool.query({ ...ADMIT,
        values: [code, null, claims.sub] });
    if (rows.length === 0) {
        return envelope({ verdict: "already_used" });
    }
    const at = rows[0].admitted_at.toISOString();
    redis.set(`peer:${code}`, at, "EX", 3600);
    return envelope({ verdict: "admitted", admittedAt: at,
        ticket: { id: rows[0].id, eventId: PEER_EVENT,
            ticketTypeId: rows[0].ticket_type_id } });
});

await app.listen({ port: Number(PEER_PORT), host: "127.0.0.1" });
console.log("ready");
