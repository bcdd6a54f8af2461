#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "client/kinds.h"

namespace penstock::client {

/// The key of kubectl's client-side apply: what was applied last, so that a field that left the file leaves the object.
inline constexpr const char* last_applied_key = "kubectl.kubernetes.io/last-applied-configuration";

/// Three-way merge patch of kubectl's client-side apply: from what was applied last, what is wanted and what is there.
resources::Json three_way_patch(const resources::Json& last, const resources::Json& wanted, const resources::Json& live);

/// Reads `path`: a file, a directory (its *.yaml, *.yml and *.json in order of name, without those that begin with a dot), or `-` for standard input.
Result<std::vector<resources::Document>> read_manifests(const std::string& path);

/// Why a document was not taken, as far as what can be done about it differs.
enum class Refusal : std::uint8_t {
    none,
    faulty,                              ///< it is not as it must be: to be corrected
    unknown_kind,                        ///< the API has no such kind
    owned,                               ///< others own fields of it
    raced,                               ///< somebody else wrote at the same moment
    no_namespace,                        ///< its namespace is not there
    forbidden,                           ///< the caller may not, or its namespace goes away
    too_large,
    full,                                ///< all objects together may not have more bytes
    no_space,                            ///< the API's disk is full
    busy,                                ///< the API cannot do it now
};
Refusal refusal_of(const Response& response);
/// What a person does about it, with commands as they are typed. `file`: as Document::file has it; `name_space`: of the document;
/// `reread`: the command that has files read again.
std::string cure_of(Refusal refusal, const std::string& file, const std::string& name_space, const std::string& manager, const std::string& reread);

struct Applied {
    std::string what;                    ///< `brokerlistener.mqttbroker.iotoperations.azure.com/plant`
    std::string outcome;                 ///< created, configured, unchanged, deleted
    std::string error;                   ///< not empty: refused
    Refusal refusal = Refusal::none;
    resources::Json object;              ///< as it is now
    std::vector<std::string> warnings = {};        ///< what the API says of what it took, in words
};

/// `file: document 2 (line 14)`.
std::string place_of(const resources::Document& document);
/// Order in which documents are applied: a Namespace before what is in it, a definition before its objects, a
/// Broker before its listeners; of one rank as in the files.
int rank_of(const resources::Document& document);
/// The text of a `Warning` header as Kubernetes writes it (`299 - "text"`), or the header as it is.
std::string warning_text(std::string_view header);

/// With the declared kinds alone, without a server: objects of other kinds are refused unless `others_too`.
/// `file: document 2 (line 14): spec.ports[0].port: ...`, one line per fault of all documents; empty when all are good.
std::vector<std::string> validate_documents(const std::vector<resources::Document>& documents, bool others_too = false);
/// Whether a write changed nothing. `sent`: a manifest or merge patch, of which only its fields are looked
/// at; or a JSON patch, which is about the whole. `before` and `after`: the object as it was read, and as the
/// write answered. Others write between the two, controllers above all: resourceVersion and managedFields say
/// nothing, nor does the status unless `with_status`.
bool is_unchanged(const resources::Json& sent, const resources::Json& before, const resources::Json& after,
                  bool with_status = false);
struct ApplyOptions {
    std::string name_space;              ///< for documents that name none
    bool dry_run = false;
    bool server_side = false;            ///< server-side apply as `manager`; else kubectl's client-side apply
    bool force = false;                  ///< server-side: take conflicting fields over
    std::string manager = "penstock-apply";
};
/// `unchanged` when the write changed nothing (see is_unchanged), whatever others wrote meanwhile.
Applied apply_document(Transport& client, Kinds& kinds, const resources::Document& document, const ApplyOptions& options);
Applied delete_document(Transport& client, Kinds& kinds, const resources::Document& document, const std::string& name_space);

}  // namespace penstock::client
