/*
 * What issuers send: documents and sets of keys, and the payload of a token
 * before anything of it is verified.  A document that is believed names its
 * issuer by jansson's reading too; a set that is taken can be printed, and
 * what is printed is a set of as many keys again.
 */

#include "fuzz.h"

#include "stoa_jwt.h"
#include "stoa_oidc.h"

#include <jansson.h>

#define ISSUER "https://i"


static void
fuzz_document(stoa_mem_t *mem, stoa_str_t text)
{
    json_t         *json;
    const char     *why, *host;
    stoa_oidc_doc_t doc;

    if (!stoa_oidc_doc(mem, ISSUER, false, text, &doc, &why)) {
        fuzz_assert(why != NULL);
        return;
    }

    json = json_loadb((char *) text.data, text.len, JSON_REJECT_DUPLICATES,
                      NULL);
    fuzz_assert(json != NULL);
    fuzz_assert(
        strcmp(json_string_value(json_object_get(json, "issuer")), ISSUER)
        == 0);
    fuzz_assert(strncmp(doc.jwks_uri, "https://", 8) == 0);
    fuzz_assert(strpbrk(doc.jwks_uri, " \r\n#\\") == NULL);
    host = doc.jwks_uri + 8;
    fuzz_assert(strcspn(host, "/?")
                == strspn(host, "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789.-_:[]"));
    json_decref(json);
}


static size_t
fuzz_count(stoa_str_t set)
{
    size_t  n;
    json_t *json = json_loadb((char *) set.data, set.len, 0, NULL);

    fuzz_assert(json != NULL);
    n = json_array_size(json_object_get(json, "keys"));
    json_decref(json);

    return n;
}


static void
fuzz_keys(stoa_mem_t *mem, stoa_str_t text)
{
    const char      *why;
    stoa_buf_t       b;
    stoa_jwt_keys_t *keys, *again;

    keys = stoa_jwks_of_others(text, &why);

    if (keys == NULL) {
        fuzz_assert(why != NULL);
        return;
    }

    stoa_buf_init(&b, mem, 4096, 1 << 20);
    fuzz_assert(stoa_jwks_print(keys, &b));
    fuzz_assert(fuzz_count(stoa_buf_view(&b)) >= 1);
    fuzz_assert(fuzz_count(stoa_buf_view(&b)) <= STOA_JWT_KEYS);
    again = stoa_jwks_of_others(stoa_buf_view(&b), &why);
    fuzz_assert(again != NULL);
    stoa_jwt_keys_destroy(again);
    stoa_jwt_keys_destroy(keys);
}


static void
fuzz_token(stoa_mem_t *mem, stoa_str_t payload)
{
    stoa_buf_t b;
    stoa_str_t issuer;

    stoa_buf_init(&b, mem, 1024, 1 << 20);
    stoa_buf_z(&b, "e30.");
    stoa_buf_base64url(&b, payload.data, payload.len);
    stoa_buf_z(&b, ".x");

    if (stoa_oidc_issuer_of(mem, stoa_buf_view(&b), &issuer)) {
        fuzz_assert(issuer.len != 0 && stoa_str_utf8(issuer, NULL));
    }

    (void) stoa_oidc_issuer_of(mem, payload, &issuer);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    stoa_mem_t *mem = stoa_arena_create(65536, FUZZ_MEMORY);
    stoa_str_t  text = fuzz_str(data, size);

    fuzz_document(mem, text);
    fuzz_keys(mem, text);
    fuzz_token(mem, text);
    stoa_arena_destroy(mem);

    return 0;
}
