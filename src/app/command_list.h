#pragma once
// The commands of `penstock`, in the order in which help and completion have them. Each is defined beside its
// code, with its options; a new one is declared and listed here and nowhere else.

namespace penstock::app {

class Commands;

// Processes that stay: run.cc, broker_role.cc.
void add_run(Commands& commands);
void add_api(Commands& commands);
void add_broker(Commands& commands);
// Resources: get_command.cc, resource_commands.cc, edit_commands.cc, label_commands.cc.
void add_get(Commands& commands);
void add_apply(Commands& commands);
void add_delete(Commands& commands);
void add_patch(Commands& commands);
void add_annotate(Commands& commands);
void add_label(Commands& commands);
void add_edit(Commands& commands);
void add_validate(Commands& commands);
void add_version(Commands& commands);
// Looking: inspect_commands.cc, wait_command.cc.
void add_api_resources(Commands& commands);
void add_describe(Commands& commands);
void add_explain(Commands& commands);
void add_wait(Commands& commands);
void add_logs(Commands& commands);
// create_commands.cc.
void add_create(Commands& commands);
// Security: auth_commands.cc, trace_commands.cc, pki_commands.cc.
void add_auth(Commands& commands);
void add_traces(Commands& commands);
void add_passwd(Commands& commands);
void add_pki(Commands& commands);
// State: backup_commands.cc, state_commands.cc.
void add_backup_registry(Commands& commands);
void add_state(Commands& commands);
void add_backup_broker(Commands& commands);
void add_backup(Commands& commands);
void add_restore(Commands& commands);
// Of the program itself: completion.cc, resource_commands.cc.
void add_completion(Commands& commands);
void add_crds(Commands& commands);
void add_write_reference(Commands& commands);
// Clients of MQTT: mqtt_commands.cc, bench_command.cc.
void add_pub(Commands& commands);
void add_sub(Commands& commands);
void add_bench(Commands& commands);
// commands.cc.
void add_help(Commands& commands);

inline constexpr void (*command_list[])(Commands&) = {
    add_run, add_api, add_broker,
    add_get, add_apply, add_delete, add_patch, add_annotate, add_label, add_edit, add_validate, add_version,
    add_api_resources, add_describe, add_explain, add_wait, add_logs, add_create,
    add_auth, add_traces, add_passwd, add_pki,
    add_backup_registry, add_state, add_backup_broker, add_backup, add_restore,
    add_completion, add_crds, add_write_reference,
    add_pub, add_sub, add_bench, add_help};

}  // namespace penstock::app
