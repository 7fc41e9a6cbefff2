/*
 * The Redis subscriber: a link of its own (stoa_redis_int.h), since a
 * subscribed connection can do nothing else but PING.
 *
 * The channels are kept and subscribed again after each connect; "up" is told
 * when all of them are confirmed, because what is published before that is
 * lost.
 */

#include "stoa_redis_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "stoa_str.h"


#define STOA_REDIS_SUB_MAGIC 0x73727362u

#define STOA_REDIS_BEAT        5000
#define STOA_REDIS_CHANNEL_MAX 256

struct stoa_redis_sub_s {
    uint32_t          magic;
    stoa_redis_link_t link;
    stoa_str_t       *channels;
    size_t            nchannels, size;
    size_t            unconfirmed; /* of those asked for at connect */
    stoa_timer_t      beat;
    void (*message)(void *data, stoa_str_t channel, stoa_str_t message);
    void (*state)(void *data, bool up);
    void *data;
    bool  told_up;
    char  bytes[512]; /* of the command being made */
};


static bool
stoa_redis_sub_say(stoa_redis_sub_t *sub, int argc, const stoa_str_t *argv)
{
    size_t len, size;

    size = STOA_REDIS_HEAD + stoa_redis_args_size(argc, argv);

    if (size > sizeof(sub->bytes)) {
        return false;
    }

    len = stoa_redis_head(sub->bytes, (size_t) argc);
    len += stoa_redis_args(sub->bytes + len, argc, argv);

    return stoa_redis_link_append(&sub->link, sub->bytes, len);
}


static bool
stoa_redis_sub_ask(stoa_redis_sub_t *sub, stoa_str_t channel)
{
    stoa_str_t argv[2];

    argv[0] = stoa_str_z("SUBSCRIBE");
    argv[1] = channel;

    return stoa_redis_sub_say(sub, 2, argv);
}


static void
stoa_redis_sub_tell(stoa_redis_sub_t *sub, bool up)
{
    if (sub->told_up != up) {
        sub->told_up = up;

        if (sub->state != NULL) {
            sub->state(sub->data, up);
        }
    }
}


static void
stoa_redis_sub_up(void *owner)
{
    size_t            i;
    stoa_redis_sub_t *sub = stoa_cast(stoa_redis_sub_t, STOA_REDIS_SUB_MAGIC,
                                      owner);
    stoa_loop_t      *loop = sub->link.loop;

    sub->unconfirmed = sub->nchannels;

    for (i = 0; i < sub->nchannels; i++) {
        if (!stoa_redis_sub_ask(sub, sub->channels[i])) {
            stoa_redis_link_lost(&sub->link, "no memory");
            return;
        }
    }

    loop->timer_set(loop, &sub->beat, STOA_REDIS_BEAT);

    if (sub->nchannels == 0) {
        stoa_redis_sub_tell(sub, true);
    }
}


static void
stoa_redis_sub_reply(void *owner, const stoa_redis_reply_t *r)
{
    char              why[128];
    stoa_str_t        kind;
    stoa_redis_sub_t *sub = stoa_cast(stoa_redis_sub_t, STOA_REDIS_SUB_MAGIC,
                                      owner);

    if (stoa_redis_type(r) == STOA_REDIS_ERROR) {
        (void) snprintf(why, sizeof(why), "%s", stoa_redis_str(r).data);
        stoa_redis_link_lost(&sub->link, why);
        return;
    }

    kind = stoa_redis_str(stoa_redis_at(r, 0)); /* empty: PONG */

    if (stoa_str_eq_z(kind, "message")) {
        sub->message(sub->data, stoa_redis_str(stoa_redis_at(r, 1)),
                     stoa_redis_str(stoa_redis_at(r, 2)));

    } else if (stoa_str_eq_z(kind, "subscribe") && sub->unconfirmed != 0) {
        if (--sub->unconfirmed == 0) {
            stoa_redis_sub_tell(sub, true);
        }
    }
}


static void
stoa_redis_sub_down(void *owner)
{
    stoa_redis_sub_t *sub = stoa_cast(stoa_redis_sub_t, STOA_REDIS_SUB_MAGIC,
                                      owner);

    sub->link.loop->timer_cancel(sub->link.loop, &sub->beat);
    stoa_redis_sub_tell(sub, false);
}


/* Redis answers PING also to subscribers: ["pong", ""]. */
static void
stoa_redis_sub_beat(stoa_timer_t *t)
{
    stoa_str_t        ping = stoa_str_z("PING");
    stoa_redis_sub_t *sub = stoa_cast(stoa_redis_sub_t, STOA_REDIS_SUB_MAGIC,
                                      t->data);
    stoa_loop_t      *loop = sub->link.loop;

    if (loop->now_ms(loop) - sub->link.heard_at
        > (uint64_t) 3 * STOA_REDIS_BEAT) {
        stoa_redis_link_lost(&sub->link, "the server is silent");
        return;
    }

    if (!stoa_redis_sub_say(sub, 1, &ping)) {
        stoa_redis_link_lost(&sub->link, "no memory");
        return;
    }

    loop->timer_set(loop, &sub->beat, STOA_REDIS_BEAT);
}


stoa_redis_sub_t *
stoa_redis_sub_create(stoa_loop_t *loop, const stoa_redis_conf_t *conf,
                      void (*on_message)(void *data, stoa_str_t channel,
                                         stoa_str_t message),
                      void (*on_state)(void *data, bool up), void *data)
{
    stoa_redis_sub_t *sub;

    sub = calloc(1, sizeof(stoa_redis_sub_t));
    if (sub == NULL) {
        return NULL;
    }

    if (!stoa_redis_link_create(&sub->link, loop, conf, sub)) {
        free(sub);
        return NULL;
    }

    sub->magic = STOA_REDIS_SUB_MAGIC;
    sub->message = on_message;
    sub->state = on_state;
    sub->data = data;
    sub->beat.fire = stoa_redis_sub_beat;
    sub->beat.data = sub;
    sub->beat.cancelable = true;
    sub->link.up = stoa_redis_sub_up;
    sub->link.reply = stoa_redis_sub_reply;
    sub->link.down = stoa_redis_sub_down;

    stoa_redis_link_connect(&sub->link);

    return sub;
}


static bool
stoa_redis_sub_channel_create(stoa_redis_sub_t *sub, stoa_str_t channel)
{
    size_t         size;
    stoa_str_t    *channels;
    unsigned char *copy;

    if (sub->nchannels == sub->size) {
        size = sub->size == 0 ? 8 : sub->size * 2;

        channels = realloc(sub->channels, size * sizeof(stoa_str_t));
        if (channels == NULL) {
            return false;
        }

        sub->channels = channels;
        sub->size = size;
    }

    copy = malloc(channel.len + 1);
    if (copy == NULL) {
        return false;
    }

    memcpy(copy, channel.data, channel.len);
    copy[channel.len] = '\0';

    sub->channels[sub->nchannels].data = copy;
    sub->channels[sub->nchannels].len = channel.len;
    sub->nchannels++;

    return true;
}


stoa_err_e
stoa_redis_sub_add(stoa_redis_sub_t *sub, stoa_str_t channel)
{
    size_t i;

    if (channel.len > STOA_REDIS_CHANNEL_MAX) {
        stoa_bug("redis: the name of a channel is too long");
        return STOA_E_INTERNAL;
    }

    for (i = 0; i < sub->nchannels; i++) {
        if (stoa_str_eq(sub->channels[i], channel)) {
            return STOA_OK;
        }
    }

    if (!stoa_redis_sub_channel_create(sub, channel)) {
        return STOA_E_NO_MEMORY;
    }

    if (sub->link.state == STOA_REDIS_UP) {
        /* one that is not confirmed yet keeps on_state(up) waiting */
        sub->unconfirmed += !sub->told_up;

        if (!stoa_redis_sub_ask(sub, channel)) {
            return STOA_E_NO_MEMORY;
        }
    }

    return STOA_OK;
}


void
stoa_redis_sub_destroy(stoa_redis_sub_t *sub)
{
    size_t i;

    if (sub == NULL) {
        return;
    }

    sub->link.loop->timer_close(sub->link.loop, &sub->beat);
    stoa_redis_link_destroy(&sub->link);

    for (i = 0; i < sub->nchannels; i++) {
        free(sub->channels[i].data);
    }

    sub->magic = 0;
    free(sub->channels);
    free(sub);
}
