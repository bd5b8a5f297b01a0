/* Which functions of CUDA's libraries were called, and how often. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define MAX_NAMES 8192
static const char* names[MAX_NAMES];
static long counts[MAX_NAMES];
static int used;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Adds n to the count of a name; names are compared by their text, for every library holds its own copies. */
int stand_in_add(const char* name, long n) {
    pthread_mutex_lock(&mutex);
    int i = 0;
    while (i < used && strcmp(names[i], name) != 0) i++;
    if (i == used && used < MAX_NAMES) names[used++] = strdup(name);
    if (i < used) counts[i] += n;
    pthread_mutex_unlock(&mutex);
    return 0;
}

int stand_in_count(const char* name) { return stand_in_add(name, 1); }

void stand_in_reset(void) {
    pthread_mutex_lock(&mutex);
    memset(counts, 0, sizeof counts);
    pthread_mutex_unlock(&mutex);
}

/* Writes "count name" lines; those that are zero are left out. */
void stand_in_write(const char* file) {
    FILE* out = fopen(file, "w");
    if (!out) return;
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < used; i++)
        if (counts[i]) fprintf(out, "%ld %s\n", counts[i], names[i]);
    pthread_mutex_unlock(&mutex);
    fclose(out);
}
