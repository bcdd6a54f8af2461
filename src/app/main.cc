#include "app/command_list.h"
#include "app/commands.h"
#include "app/terminal_guard.h"
#include "io/process.h"

int main(int argc, char** argv) {
    penstock::io::hold_standard_descriptors();
    penstock::app::guard_terminals();
    penstock::app::Commands commands;
    for (const auto add : penstock::app::command_list) add(commands);
    return commands.run({argv + 1, argv + argc});
}
