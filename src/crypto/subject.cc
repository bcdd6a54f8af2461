#include "crypto/subject.h"

#include <openssl/objects.h>

#include "crypto/native.h"

namespace penstock::crypto {

std::vector<std::string> subject_values(const Certificate& certificate, const char* attribute) {
    std::vector<std::string> out;
    const int wanted = OBJ_txt2nid(attribute);
    if (!certificate || wanted == NID_undef) return out;
    auto* name = X509_get_subject_name(certificate.native());
    for (int i = 0; i < X509_NAME_entry_count(name); ++i) {
        const auto* entry = X509_NAME_get_entry(name, i);
        if (OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry)) != wanted) continue;
        unsigned char* text = nullptr;
        const int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(entry));
        if (size < 0) continue;
        std::string value(text, text + size);
        OPENSSL_free(text);
        if (value.find('\0') == std::string::npos) out.push_back(std::move(value));
    }
    return out;
}

}  // namespace penstock::crypto
