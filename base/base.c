#include "base/base.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

cca_status cca_fail(cca_error *err, cca_status status, const char *format, ...) {
    if (err) {
        char text[sizeof err->text], shown[4 * sizeof err->text];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        size_t size = cca_utf8_printable(shown, text, strlen(text), false);
        size_t most = sizeof err->text - 1;
        while (size > most || (size > 0 && cca_utf8_continues(shown[size]))) size--;
        memcpy(err->text, shown, size);
        err->text[size] = '\0';
        err->status = status;
    }
    return status;
}
