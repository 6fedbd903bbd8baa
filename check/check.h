/* What a check found.
 *
 *     static void show(void *user, const cca_check *c) { puts(c->passed ? "ok" : c->name); } */
#ifndef CCA_CHECK_H
#define CCA_CHECK_H

#include "base/base.h"

typedef struct cca_check {
    const char *name;    /* valid during the call */
    double difference;   /* measured; infinite where a value is no number */
    double bound;        /* the difference must not be larger; 0: the same bits */
    bool passed;         /* or skipped */
    const char *skipped; /* why it was not made, or NULL */
} cca_check;

/* Called for each check as it is done. */
typedef void (*cca_check_fn)(void *user, const cca_check *check);

#endif
