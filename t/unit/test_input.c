/*
 * Validation: both bounds of every kind and one beyond each, both spellings,
 * every fault of a request at once with its pointer, the canonical text.
 */

#include "unit_core.h"

#include "stoa_input.h"

static stoa_mem_t   *mem;
static stoa_faults_t faults;


static int
input_setup(void **state)
{
    mem = stoa_arena_create(65536, 1 << 26);
    return mem == NULL;
}


static int
input_teardown(void **state)
{
    stoa_arena_destroy(mem);
    return 0;
}


/* The code of the only fault, or "ok <value>". */
static const char *
input_one(const stoa_field_t *field, const char *raw)
{
    stoa_value_t v;
    stoa_buf_t   b;

    faults.n = 0;

    if (!stoa_input_scalar(mem, field, Z(raw), &v, "here", &faults)) {
        assert_int_equal(faults.n, 1);
        assert_string_equal(faults.fault[0].pointer, "here");
        assert_true(faults.fault[0].detail[0] != '\0');
        return faults.fault[0].code;
    }

    assert_int_equal(faults.n, 0);
    assert_int_equal(v.data[v.len], 0);
    stoa_buf_init(&b, mem, 64, 4096);
    stoa_buf_z(&b, "ok ");
    stoa_buf_str(&b, v);
    stoa_buf_nul(&b);

    return (char *) b.data;
}


static const char *const colors[] = { "red", "green", NULL };

static const stoa_field_t kinds[] = {
    { .name = "text", .type = STOA_T_TEXT, .min = 2, .max = 4 },
    { .name = "secret", .type = STOA_T_SECRET, .min = 2, .max = 4 },
    { .name = "code", .type = STOA_T_CODE, .min = 1, .max = 4 },
    { .name = "int", .type = STOA_T_INT, .min = -5, .max = 10 },
    { .name = "bool", .type = STOA_T_BOOL },
    { .name = "uuid", .type = STOA_T_UUID },
    { .name = "time", .type = STOA_T_TIME },
    { .name = "zone", .type = STOA_T_TIMEZONE },
    { .name = "currency", .type = STOA_T_CURRENCY },
    { .name = "url", .type = STOA_T_URL, .max = 40 },
    { .name = "color", .type = STOA_T_ENUM, .values = colors },
    { .name = "email", .type = STOA_T_EMAIL },
    { .name = "odd", .type = STOA_T_OBJECT, .items = kinds },
    { .name = "lines",
      .type = STOA_T_TEXT,
      .flags = STOA_LINES,
      .min = 1,
      .max = 5 },
    stoa_end_field,
};


static void
input_scalars(void **state)
{
    static const char *const rows[][3] = {
        { "text", "\xc3\xa9\xc3\xa9", "ok \xc3\xa9\xc3\xa9" },
        { "text", "\xc3\xa9", "too_short" },
        { "text", "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9",
          "ok \xc3\xa9\xc3\xa9"
          "\xc3\xa9\xc3\xa9" },
        { "text", "abcde", "too_long" },
        { "text", "ab\xff", "format" },
        /* one line: trimmed before it is measured, no controls, no marks */
        { "text", " \t ab \r\n", "ok ab" },
        { "text", "\xe3\x80\x80 abcd \xc2\xa0\xe2\x80\x8b", "ok abcd" },
        { "text", "a  b", "ok a  b" },
        { "text", " a ", "too_short" },
        { "text", "    ", "too_short" },
        { "text", "\xe2\x80\x8b\xef\xbb\xbf\xe2\x81\xa0", "too_short" },
        { "text", "a\nb", "format" },
        { "text", "a\rb", "format" },
        { "text", "a\tb", "format" },
        { "text",
          "a\x1b"
          "b",
          "format" },
        { "text",
          "a\x7f"
          "b",
          "format" },
        { "text",
          "a\xc2\x9f"
          "b",
          "format" },
        { "text",
          "a\xe2\x80\xa8"
          "b",
          "format" },
        { "text",
          "a\xe2\x80\xa9"
          "b",
          "format" },
        { "text",
          "a\xe2\x80\xaa"
          "b",
          "format" },
        { "text",
          "a\xe2\x80\xae"
          "b",
          "format" },
        { "text", "ab\xe2\x80\xae", "format" },
        { "text",
          "a\xe2\x81\xa6"
          "b",
          "format" },
        { "text",
          "a\xe2\x81\xa9"
          "b",
          "format" },
        { "text",
          "a\xe2\x80\xaf"
          "b",
          "ok a\xe2\x80\xaf"
          "b" },
        { "text", "a\xf0\x9f\x8e\xab", "ok a\xf0\x9f\x8e\xab" },
        { "lines", " a\nb", "ok  a\nb" },
        { "lines", "a\r\n\tb", "ok a\r\n\tb" },
        { "lines", "a\xe2\x80\xae", "ok a\xe2\x80\xae" },
        { "lines", "a\x1b", "format" },
        { "lines", "a\xc2\x85", "format" },
        { "secret", "abcd", "ok abcd" },
        { "secret", "a", "too_short" },
        { "code", "abcd", "ok abcd" },
        { "code", "", "too_short" },
        { "code", "\xc3\xa9\xc3\xa9\xc3", "format" },
        { "code",
          "\xc3\xa9\xc3\xa9"
          "a",
          "too_long" },
        { "int", "-5", "ok -5" },
        { "int", "-6", "too_small" },
        { "int", "10", "ok 10" },
        { "int", "11", "too_large" },
        { "int", "0", "ok 0" },
        { "int", "00", "type" },
        { "int", "-01", "type" },
        { "int", "1.0", "type" },
        { "int", "99999999999999999999", "type" },
        { "int", "", "type" },
        { "bool", "true", "ok true" },
        { "bool", "false", "ok false" },
        { "bool", "TRUE", "type" },
        { "bool", "1", "type" },
        { "uuid", "019A5B7C-0000-7ABC-8DEF-0123456789AB",
          "ok 019a5b7c-0000-7abc-8def-0123456789ab" },
        { "uuid", "019a5b7c", "format" },
        { "time", "2026-01-02T05:34:05.678+02:30",
          "ok 2026-01-02T03:04:05.678Z" },
        { "time", "2026-01-02", "format" },
        { "zone", "Europe/Berlin", "ok Europe/Berlin" },
        { "zone", "Etc/GMT+5", "ok Etc/GMT+5" },
        { "zone", "../etc/passwd", "format" },
        { "zone", "Europe//Berlin", "format" },
        { "zone", "Europe/", "format" },
        { "zone", "1UTC", "format" },
        { "zone", "", "format" },
        { "currency", "EUR", "ok EUR" },
        { "currency", "AED", "ok AED" },
        { "currency", "ZWG", "ok ZWG" },
        { "currency", "ZZZ", "format" },
        { "currency", "XTS", "format" },
        { "currency", "XAU", "format" },
        { "currency", "ED ", "format" },
        { "currency", "EURO", "format" },
        { "currency", "eur", "format" },
        { "url", "https://a.example/x?y#z", "ok https://a.example/x?y#z" },
        { "url", "http://a", "ok http://a" },
        { "url", "https:///x", "format" },
        { "url", "ftp://a.example", "format" },
        { "url", "javascript:alert(1)", "format" },
        { "url", "https://a.example/ x", "format" },
        { "url", "https://a.example/\"x", "format" },
        { "url", "https://a.example/0123456789012345678901",
          "ok https://"
          "a.example/0123456789012345678901" },
        { "url", "https://a.example/01234567890123456789012", "too_long" },
        { "color", "red", "ok red" },
        { "color", "Red", "not_allowed" },
        { "color", "", "not_allowed" },
        { "odd", "{}", "type" },
    };
    size_t i, k;

    for (i = 0; i < stoa_nitems(rows); i++) {
        for (k = 0; strcmp(kinds[k].name, rows[i][0]) != 0; k++) {
        }

        if (strcmp(input_one(&kinds[k], rows[i][1]), rows[i][2]) != 0) {
            fail_msg("%s %s: %s, not %s", rows[i][0], rows[i][1],
                     input_one(&kinds[k], rows[i][1]), rows[i][2]);
        }
    }
}


static void
input_email(void **state)
{
    static const char *const good[] = {
        "a@b.co",
        "first.last+tag@sub.example.org",
        "o'brien@example.com",
        "a_b-c=d@x-y.example",
        "1@2.33",
    };
    static const char *const bad[] = {
        "",
        "a",
        "a@",
        "@b.co",
        "a@b",
        "a@@b.co",
        "a@b@c.co",
        ".a@b.co",
        "a.@b.co",
        "a..b@c.co",
        "a@.co",
        "a@b.",
        "a@b..co",
        "a@-b.co",
        "a@b-.co",
        "a@b.co-",
        "a b@c.co",
        "a@b .co",
        "a@b.co\r\nBcc: x@y.zz",
        "\"a b\"@c.co",
        "a@[127.0.0.1]",
        "a<b@c.co",
        "a,b@c.co",
        "\xc3\xa9@b.co",
        "a@b\xc3\xa9.co",
        "a@b_c.co",
    };
    const stoa_field_t *f = &kinds[11];
    char                text[512];
    size_t              i;

    for (i = 0; i < stoa_nitems(good); i++) {
        if (strncmp(input_one(f, good[i]), "ok ", 3) != 0) {
            fail_msg("%s refused", good[i]);
        }
    }

    for (i = 0; i < stoa_nitems(bad); i++) {
        if (strcmp(input_one(f, bad[i]), "format") != 0) {
            fail_msg("%s accepted", bad[i]);
        }
    }

    (void) snprintf(text, sizeof(text), "%064d@b.co", 0);
    assert_string_not_equal(input_one(f, text), "format");
    (void) snprintf(text, sizeof(text), "%065d@b.co", 0);
    assert_string_equal(input_one(f, text), "format");
    (void) snprintf(text, sizeof(text), "a@%063d.co", 0);
    assert_string_not_equal(input_one(f, text), "format");
    (void) snprintf(text, sizeof(text), "a@%064d.co", 0);
    assert_string_equal(input_one(f, text), "format");
    (void) snprintf(text, sizeof(text), "a@%050d.%060d.%060d.%060d.%013d.co", 0,
                    0, 0, 0, 0);
    assert_int_equal(strlen(text), 252);
    assert_string_not_equal(input_one(f, text), "format");
    (void) snprintf(text, sizeof(text), "a@%050d.%060d.%060d.%060d.%016d.co", 0,
                    0, 0, 0, 0);
    assert_int_equal(strlen(text), 255);
    assert_string_equal(input_one(f, text), "format");
}


/* ---- queries and forms ---- */

static const stoa_field_t query[] = {
    { .name = "event_id", .type = STOA_T_UUID },
    { .name = "limit", .type = STOA_T_INT, .min = 1, .max = 100 },
    { .name = "q",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 20,
      .flags = STOA_REQUIRED },
    stoa_end_field,
};


static const stoa_field_t ids_item[] = {
    { .name = "id", .type = STOA_T_UUID },
    stoa_end_field,
};

static const stoa_field_t ids[] = {
    { .name = "ids",
      .type = STOA_T_LIST,
      .min = 1,
      .max = 2,
      .items = ids_item },
    stoa_end_field,
};


static bool
input_has(const char *pointer, const char *code)
{
    unsigned i;

    for (i = 0; i < faults.n; i++) {
        if (strcmp(faults.fault[i].pointer, pointer) == 0
            && strcmp(faults.fault[i].code, code) == 0)
        {
            return true;
        }
    }

    return false;
}


static void
input_queries(void **state)
{
    stoa_value_t v[3];

    faults.n = 0;
    assert_true(
        stoa_input_query(mem, query, L("q=a+b%26c&limit=7"), v, &faults));
    assert_true(stoa_str_eq_z(v[2], "a b&c"));
    assert_true(stoa_str_eq_z(v[1], "7"));
    assert_null(v[0].data);

    assert_true(stoa_input_query(
        mem, query, L("&q=x&&eventId=019a5b7c-0000-7abc-8def-0123456789ab"), v,
        &faults));
    assert_int_equal(v[0].len, 36);
    assert_true(
        stoa_input_query(mem, query, L("q=x&event_id=&limit="), v, &faults));
    assert_null(v[0].data);

    faults.n = 0;
    assert_false(
        stoa_input_query(mem, query,
                         L("limit=0&limti=5&event_id=x&limit=3&%zz=1&a"), v,
                         &faults));
    assert_true(input_has("limit", "too_small"));
    assert_true(input_has("limti", "unknown"));
    assert_true(input_has("event_id", "format"));
    assert_true(input_has("limit", "duplicate"));
    assert_true(input_has("q", "required"));
    assert_true(input_has("", "syntax"));
    assert_true(input_has("a", "unknown"));
    assert_int_equal(faults.n, 7);
    assert_non_null(strstr(faults.fault[1].detail, "\"limit\""));

    /* one field in both spellings is given twice */
    faults.n = 0;
    assert_false(
        stoa_input_query(mem, query, L("q=x&event_id=&eventId="), v, &faults));
    assert_true(input_has("eventId", "duplicate"));

    faults.n = 0;
    assert_false(stoa_input_query(mem, query, (stoa_str_t) stoa_null_string, v,
                                  &faults));
    assert_true(input_has("q", "required"));
}


/* Items stand between commas, escaped or not, and come out in one spelling. */
static void
input_lists_of_queries(void **state)
{
    static const char *const bad[][2] = {
        { "ids=,", "format" },
        { "ids=019a5b7c-0000-7abc-8def-0123456789ab,", "format" },
        { "ids=,019a5b7c-0000-7abc-8def-0123456789ab", "format" },
        { "ids=x,y", "format" },
        { "ids=a,b,c", "too_long" },
        { "ids=x&ids=y", "duplicate" },
    };
    stoa_value_t v[1];
    size_t       i;

    faults.n = 0;
    assert_true(stoa_input_query(mem, ids,
                                 L("ids=019A5B7C-0000-7abc-8def-0123456789ab%2c"
                                   "019a5b7c-0000-7abc-8def-0123456789AC"),
                                 v, &faults));
    assert_true(stoa_str_eq_z(v[0], "019a5b7c-0000-7abc-8def-0123456789ab,"
                                    "019a5b7c-0000-7abc-8def-0123456789ac"));
    assert_true(stoa_input_query(mem, ids,
                                 L("ids=019a5b7c-0000-7abc-8def-0123456789ab"),
                                 v, &faults));
    assert_int_equal(v[0].len, 36);
    assert_int_equal(v[0].data[36], 0);

    assert_true(stoa_input_query(mem, ids, L("ids="), v, &faults));
    assert_null(v[0].data);

    for (i = 0; i < stoa_nitems(bad); i++) {
        faults.n = 0;
        assert_false(
            stoa_input_query(mem, ids, stoa_str_z(bad[i][0]), v, &faults));
        assert_true(input_has("ids", bad[i][1]));
    }
}


static void
input_forms(void **state)
{
    static const stoa_field_t fields[] = {
        { .name = "action",
          .type = STOA_T_ENUM,
          .values = colors,
          .flags = STOA_REQUIRED },
        { .name = "top_n", .type = STOA_T_INT, .min = 0, .max = 9 },
        stoa_end_field,
    };
    stoa_value_t v[2];
    stoa_str_t   canonical;

    faults.n = 0;
    assert_true(stoa_input_form(mem, fields, L("action=red&topN=5"), v,
                                &canonical, &faults));
    assert_true(stoa_str_eq_z(canonical, "{\"action\":\"red\",\"top_n\":5}"));
    assert_false(
        stoa_input_form(mem, fields, L("topN=5&x=1"), v, &canonical, &faults));
    assert_true(input_has("/action", "required"));
    assert_true(input_has("/x", "unknown"));
}


/* ---- bodies ---- */

static const stoa_field_t item[] = {
    { .name = "ticket_type_id", .type = STOA_T_UUID, .flags = STOA_REQUIRED },
    { .name = "quantity",
      .type = STOA_T_INT,
      .min = 1,
      .max = 10,
      .flags = STOA_REQUIRED },
    stoa_end_field,
};

static const stoa_field_t tag[] = {
    { .name = "", .type = STOA_T_TEXT, .min = 1, .max = 5 },
};

static const stoa_field_t body[] = {
    { .name = "title",
      .type = STOA_T_TEXT,
      .min = 1,
      .max = 10,
      .flags = STOA_REQUIRED },
    { .name = "starts_at", .type = STOA_T_TIME, .flags = STOA_NULLABLE },
    { .name = "items",
      .type = STOA_T_LIST,
      .min = 1,
      .max = 3,
      .items = item,
      .object = true },
    { .name = "tags", .type = STOA_T_LIST, .min = 0, .max = 2, .items = tag },
    { .name = "place", .type = STOA_T_OBJECT, .items = item },
    { .name = "open", .type = STOA_T_BOOL },
    { .name = "n",
      .type = STOA_T_INT,
      .min = -9007199254740991,
      .max = 9007199254740991 },
    stoa_end_field,
};

#define UUID "019a5b7c-0000-7abc-8def-0123456789ab"

static stoa_value_t values[7];
static stoa_str_t   canonical;


static bool
input_body(const char *text)
{
    stoa_json_t *json;

    faults.n = 0;
    canonical = (stoa_str_t) stoa_null_string;

    return stoa_input_json(mem, body, Z(text), values, &canonical, &json,
                           &faults);
}


static void
input_bodies(void **state)
{
    if (!input_body("{\"title\":\"a\\u00e9\\\"\",\"startsAt\":null,"
                    "\"items\":[{\"ticketTypeId\":"
                    "\"019A5B7C-0000-7ABC-8DEF-0123456789AB\","
                    "\"quantity\":2}],\"tags\":[\"x\",\"y\"],"
                    "\"open\":false,\"n\":-9007199254740991}"))
    {
        fail_msg("%s %s", faults.fault[0].pointer, faults.fault[0].code);
    }

    canonical.data[canonical.len] = '\0';
    assert_string_equal((char *) canonical.data,
                        "{\"title\":\"a\xc3\xa9\\\"\",\"starts_at\":null,"
                        "\"items\":[{\"ticket_type_id\":\"" UUID "\","
                        "\"quantity\":2}],\"tags\":[\"x\",\"y\"],"
                        "\"open\":false,\"n\":-9007199254740991}");
    assert_true(stoa_str_eq_z(values[0], "a\xc3\xa9\""));
    assert_null(values[1].data);
    assert_true(stoa_str_eq_z(values[2], "[{\"ticket_type_id\":\"" UUID
                                         "\",\"quantity\":2}]"));
    assert_true(stoa_str_eq_z(values[3], "[\"x\",\"y\"]"));
    assert_null(values[4].data);
    assert_true(stoa_str_eq_z(values[5], "false"));
    assert_true(stoa_str_eq_z(values[6], "-9007199254740991"));

    /* a name may be written with escapes, but not twice */
    assert_true(input_body("{\"\\u0074itle\":\"a\",\"t\\u0061gs\":[\"\\ud83c"
                           "\\udfab\\/\\u0042\"]}"));
    assert_true(stoa_str_eq_z(canonical, "{\"title\":\"a\",\"tags\":[\""
                                         "\xf0\x9f\x8e\xab/B\"]}"));
    assert_false(input_body("{\"\\u0074itle\":\"a\",\"title\":\"b\"}"));
    assert_true(input_has("", "duplicate"));
    assert_false(input_body("{\"title\":\"a\",\"ti\\\"tle\":\"b\"}"));
    assert_int_equal(faults.n, 1);
    assert_string_equal(faults.fault[0].code, "unknown");

    /* space wherever it may stand; without a built value */
    faults.n = 0;
    assert_true(
        stoa_input_json(mem, body,
                        L(" \n{ \"title\" : \"a\" , \"items\" : [ { "
                          "\"quantity\" : 1 , \"ticketTypeId\" : \"" UUID
                          "\" } ] } \t"),
                        values, &canonical, NULL, &faults));
    assert_true(stoa_str_eq_z(canonical,
                              "{\"title\":\"a\",\"items\":[{\"quantity\":1,"
                              "\"ticket_type_id\":\"" UUID "\"}]}"));

    /* absent members stay absent; snake_case is as good */
    assert_true(input_body("{\"title\":\"a\",\"starts_at\":"
                           "\"2026-01-02T03:04:05+00:00\"}"));
    assert_true(stoa_str_eq_z(canonical, "{\"title\":\"a\",\"starts_at\":"
                                         "\"2026-01-02T03:04:05.000Z\"}"));
    assert_true(input_body("{\"title\":\"a\",\"place\":{\"quantity\":1,"
                           "\"ticketTypeId\":\"" UUID "\"}}"));
    assert_true(stoa_str_eq_z(values[4],
                              "{\"quantity\":1,\"ticket_type_id\":\"" UUID
                              "\"}"));
}


static void
input_body_faults(void **state)
{
    assert_false(input_body(
        "{\"titel\":\"x\",\"startsAt\":5,\"starts_at\":null,\"items\":[{"
        "\"quantity\":0},7,{\"ticket_type_id\":\"" UUID "\",\"quantity\":11,"
        "\"x/y~z\":1}],\"tags\":[\"abcdef\",\"\",\"c\"],\"open\":\"true\","
        "\"n\":1.5,\"place\":[]}"));
    assert_true(input_has("/titel", "unknown"));
    assert_true(input_has("/title", "required"));
    assert_true(input_has("/startsAt", "type"));
    assert_true(input_has("/starts_at", "duplicate"));
    assert_true(input_has("/items/0/quantity", "too_small"));
    assert_true(input_has("/items/0/ticketTypeId", "required"));
    assert_true(input_has("/items/1", "type"));
    assert_true(input_has("/items/2/quantity", "too_large"));
    assert_true(input_has("/items/2/x~1y~0z", "unknown"));
    assert_true(input_has("/tags", "too_long"));
    assert_true(input_has("/open", "type"));
    assert_true(input_has("/n", "type"));
    assert_true(input_has("/place", "type"));
    assert_int_equal(faults.n, 13);

    assert_false(input_body("{\"title\":\"a\",\"tags\":[\"abcdef\",\"\"],"
                            "\"items\":[]}"));
    assert_true(input_has("/tags/0", "too_long"));
    assert_true(input_has("/tags/1", "too_short"));
    assert_true(input_has("/items", "too_short"));

    assert_false(input_body("{\"title\":null,\"open\":null}"));
    assert_true(input_has("/title", "required"));
    assert_true(input_has("/open", "type"));

    assert_false(input_body("[1]"));
    assert_true(input_has("", "type"));
    assert_false(input_body("{\"title\":"));
    assert_true(input_has("", "syntax"));
    assert_false(input_body(""));
    assert_true(input_has("", "syntax"));
    assert_false(input_body("{\"title\":\"a\",\"title\":\"b\"}"));
    assert_true(input_has("", "duplicate"));
    assert_false(input_body("{\"n\":9007199254740992}"));
    assert_true(input_has("", "number_range"));
    assert_false(input_body("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["));
    assert_true(input_has("", "too_deep"));
}


/* More faults than are kept: counted to the limit, no further. */
static void
input_many_faults(void **state)
{
    stoa_buf_t b;
    unsigned   i;

    stoa_buf_init(&b, mem, 0, 65536);
    stoa_buf_z(&b, "{\"title\":\"a\"");

    for (i = 0; i < 100; i++) {
        stoa_buf_printf(&b, ",\"key%u\":%u", i, i);
    }

    stoa_buf_z(&b, "}");
    stoa_buf_nul(&b);
    assert_false(input_body((char *) b.data));
    assert_int_equal(faults.n, STOA_INPUT_FAULTS);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(input_scalars),
        cmocka_unit_test(input_email),
        cmocka_unit_test(input_queries),
        cmocka_unit_test(input_lists_of_queries),
        cmocka_unit_test(input_forms),
        cmocka_unit_test(input_bodies),
        cmocka_unit_test(input_body_faults),
        cmocka_unit_test(input_many_faults),
    };

    return cmocka_run_group_tests_name("input", tests, input_setup,
                                       input_teardown);
}
