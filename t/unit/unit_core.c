/*
 * Files of t/data and a small generator; see unit_core.h.
 */

#include "unit_core.h"

#include <dirent.h>


static void
unit_path(char *out, size_t size, const char *name)
{
    const char *root = getenv("UNIT_ROOT");

    (void) snprintf(out, size, "%s/t/data/%s", root != NULL ? root : ".", name);
}


stoa_str_t
unit_read(stoa_mem_t *mem, const char *name)
{
    char       path[512];
    stoa_str_t s;
    FILE      *f;
    long       len;

    unit_path(path, sizeof(path), name);
    f = fopen(path, "rb");

    if (f == NULL) {
        fail_msg("%s cannot be read", path);
    }

    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    len = ftell(f);
    assert_true(len >= 0);
    rewind(f);

    s.len = (size_t) len;
    s.data = stoa_alloc(mem, s.len + 1);
    assert_non_null(s.data);
    assert_int_equal(fread(s.data, 1, s.len, f), s.len);
    s.data[s.len] = '\0';
    assert_int_equal(fclose(f), 0);

    return s;
}


static int
unit_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *) a, *(char *const *) b);
}


char **
unit_list(stoa_mem_t *mem, const char *folder)
{
    struct dirent *entry;
    char           path[512], **names;
    size_t         n = 0;
    DIR           *dir;

    unit_path(path, sizeof(path), folder);
    dir = opendir(path);

    if (dir == NULL) {
        fail_msg("%s cannot be listed", path);
    }

    names = stoa_calloc(mem, 1024 * sizeof(char *));
    assert_non_null(names);

    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            assert_true(n < 1023);
            names[n] = stoa_strdup_z(mem, stoa_str_z(entry->d_name));
            assert_non_null(names[n]);
            n++;
        }
    }

    assert_int_equal(closedir(dir), 0);
    qsort(names, n, sizeof(char *), unit_compare);

    return names;
}


uint32_t
unit_number(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;

    return *seed >> 8;
}
