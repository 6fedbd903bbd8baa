/* The only C++ of the program: SentencePiece's processor behind C functions. Nothing is thrown
 * out of here. */
#include <sentencepiece_processor.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>

extern "C" {
#include "text/spm.h"
}

struct cca_spm_library {
    std::string name;
    sentencepiece::SentencePieceProcessor processor;
};

namespace {

/* The library quotes pieces, which may hold anything. */
std::string printable(const char *message) {
    std::string text(message);
    for (char &c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return text.substr(0, 200);
}

/* Where the character ends whose byte pieces start at piece i: its last one says so, the others
 * are empty. */
uint32_t character_end(const sentencepiece::ImmutableSentencePieceText &result, int i) {
    uint32_t begin = result.pieces(i).begin();
    int n = static_cast<int>(result.pieces_size());
    for (; i < n && result.pieces(i).begin() == begin; i++)
        if (result.pieces(i).end() > begin) return result.pieces(i).end();
    return begin + 1;
}

/* Appends a result. The library gives each byte piece the offset of its character; here the
 * k-th one gets that of the k-th byte, as far as the character reaches. */
bool append(cca_tokens *out, const sentencepiece::SentencePieceProcessor &processor,
            const sentencepiece::ImmutableSentencePieceText &result, uint64_t base) {
    uint32_t begin = 0, end = 0, k = 0; /* of the character under way; none: end is 0 */
    int n = static_cast<int>(result.pieces_size());
    for (int i = 0; i < n; i++) {
        auto piece = result.pieces(i);
        int32_t id = static_cast<int32_t>(piece.id());
        uint32_t offset = piece.begin();
        if (!processor.IsByte(id)) {
            end = 0;
        } else if (end == 0 || offset != begin) {
            begin = offset;
            end = character_end(result, i);
            k = 0;
        } else {
            k++;
            offset = std::min(begin + k, end - 1);
        }
        if (!cca_tokens_push(out, id, base + offset)) return false;
    }
    return true;
}

} // namespace

extern "C" cca_status cca_spm_library_open(cca_spm_library **out, const void *bytes, size_t size,
                                           const char *name, cca_error *err) {
    *out = nullptr;
    try {
        auto library = std::make_unique<cca_spm_library>();
        library->name = name;
        auto status = library->processor.LoadFromSerializedProto(
            std::string_view(static_cast<const char *>(bytes), size));
        if (!status.ok())
            return cca_fail(err, CCA_BAD_MODEL, "%s: SentencePiece refuses the model: %s", name,
                            printable(status.error_message()).c_str());
        *out = library.release();
        return CCA_OK;
    } catch (const std::bad_alloc &) {
        return cca_fail(err, CCA_NO_MEMORY, "%s: no memory for a model of %zu bytes", name, size);
    } catch (const std::exception &e) {
        return cca_fail(err, CCA_BAD_MODEL, "%s: SentencePiece refuses the model: %s", name,
                        e.what());
    }
}

extern "C" void cca_spm_library_close(cca_spm_library *library) {
    delete library;
}

extern "C" cca_status cca_spm_library_encode(cca_tokens *out, const cca_spm_library *library,
                                             const char *text, size_t size, uint64_t base,
                                             cca_error *err) {
    const char *name = library->name.c_str();
    size_t before = out->n;
    try {
        sentencepiece::ImmutableSentencePieceText result;
        auto status =
            library->processor.Encode(std::string_view(text, size), result.mutable_proto());
        if (!status.ok())
            return cca_fail(err, CCA_BAD_MODEL, "%s: SentencePiece cannot encode %zu bytes: %s",
                            name, size, printable(status.error_message()).c_str());
        if (append(out, library->processor, result, base)) return CCA_OK;
    } catch (const std::exception &) { /* std::bad_alloc or std::length_error */
    }
    out->n = before;
    return cca_fail(err, CCA_NO_MEMORY, "%s: no memory to encode %zu bytes", name, size);
}
