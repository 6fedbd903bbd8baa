/* Calls of our own code that fail: the linker leads them here (--wrap).
 *
 *     if (!faults_open()) ...
 *     faults_set(FAULT_EIO, 3, false);             // the third call that can fail so will
 *     ... a child calls faults_arm(), and runs ...
 *     faults_counted(), faults_call(), faults_path()
 *
 * Those of libraries (stdio, jansson, SentencePiece) are theirs. */
#ifndef CCA_ALLOC_FAULTS_H
#define CCA_ALLOC_FAULTS_H

#include <stdbool.h>

typedef enum fault {
    FAULT_MEMORY, /* no memory */
    FAULT_EIO,    /* a disk fails */
    FAULT_ENOSPC, /* a disk is full */
    FAULT_EINTR,  /* a signal came; the next try succeeds */
    FAULT_SHORT,  /* half of what was asked for is read or written */
    FAULTS
} fault;

bool faults_open(void);
/* The k-th call from now on; 0: none, they are only counted. */
void faults_set(fault kind, long k, bool verbose);
/* In this process; the parent knows what it counts. */
void faults_arm(void);
long faults_counted(void);
/* The call that failed, and the file it was about; "" where there was none. */
const char *faults_call(void);
const char *faults_path(void);
const char *faults_name(fault kind);

#endif
