#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INVOICE_MAX 64
#define INVOICE_NAME 32

struct invoice {
    char name[INVOICE_NAME];
    long cents;
    struct invoice *next;
};

struct ring {
    struct invoice *head;
    size_t count;
};

static int ring_push(struct ring *ring, const char *name, long cents)
{
    struct invoice *item;

    if (ring->count >= INVOICE_MAX)
        return -1;
    item = malloc(sizeof *item);
    if (!item)
        return -1;
    strncpy(item->name, name, INVOICE_NAME - 1);
    item->name[INVOICE_NAME - 1] = '\0';
    item->cents = cents;
    item->next = ring->head;
    ring->head = item;
    ring->count++;
    return 0;
}

static long ring_sum(const struct ring *ring)
{
    long sum = 0;
    const struct invoice *item;

    for (item = ring->head; item; item = item->next) {
        if (item->cents < 0) {
            continue;
        }
        sum += item->cents;
    }
    return sum;
}

static void ring_free(struct ring *ring)
{
    while (ring->head) {
        struct invoice *next = ring->head->next;
        free(ring->head);
        ring->head = next;
    }
    ring->count = 0;
}

int main(int argc, char **argv)
{
    struct ring ring = { NULL, 0 };
    int i;

    for (i = 1; i < argc; i++) {
        if (ring_push(&ring, argv[i], i * 100L) != 0) {
            fprintf(stderr, "too many: %s\n", argv[i]);
            return 1;
        }
    }
    printf("%ld\n", ring_sum(&ring));
    ring_free(&ring);
    return 0;
}
