/*
 * Ticket codes.  What opens has one text only; what verifies is what signing
 * the same fields makes (Ed25519 is deterministic), so nothing else passes.
 */

#include "fuzz.h"

#include "stoa_code.h"


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static stoa_code_key_t *key;
    static const uint8_t    seed[32] = { 1, 2, 3 };
    stoa_code_t             code, again;
    stoa_str_t              text = fuzz_str(data, size), made;
    char                    out[STOA_CODE_LEN];
    size_t                  i;

    if (key == NULL) {
        key = stoa_code_key_create(seed, 1);
        fuzz_assert(key != NULL);
    }

    if (stoa_code_open(key, text, true, &code)) {
        fuzz_assert(stoa_code_open(key, text, false, &again));
        fuzz_assert(memcmp(&code, &again, sizeof(code)) == 0);
        fuzz_assert(stoa_code_sign(key, &code, out));

        for (i = 0; i < STOA_CODE_LEN; i++) {
            fuzz_assert((data[i] >= 'a' ? data[i] - 0x20 : data[i])
                        == (unsigned char) out[i]);
        }
    }

    /* the input's bytes as a ticket: signing and opening are inverse */
    memset(&code, 0, sizeof(code));
    code.kid = 1;

    for (i = 0; i < size && i < 33; i++) {
        if (i < 16) {
            code.ticket.b[i] = data[i];

        } else if (i < 32) {
            code.type.b[i - 16] = data[i];

        } else {
            code.generation = data[i];
        }
    }

    fuzz_assert(stoa_code_sign(key, &code, out));
    made.data = (unsigned char *) out;
    made.len = STOA_CODE_LEN;
    fuzz_assert(stoa_code_open(key, made, true, &again));
    fuzz_assert(memcmp(&code, &again, sizeof(code)) == 0);

    /* and one changed character is another code */
    if (size > 33) {
        i = data[33] % STOA_CODE_LEN;
        out[i] = out[i] == 'A' ? 'Q' : 'A';
        fuzz_assert(!stoa_code_open(key, made, true, &again));
    }

    return 0;
}
