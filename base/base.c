#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>

cca_status cca_fail(cca_error *err, cca_status status, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        err->status = status;
    }
    return status;
}
