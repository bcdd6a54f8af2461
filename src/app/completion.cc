// Completion for shells, made from the commands themselves.
#include <iostream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/command_list.h"
#include "app/terminal.h"
#include "resources/schema.h"

namespace penstock::app {
namespace {

/// Commands whose words are kinds and then names.
constexpr const char* by_kind = "get|describe|delete|explain|wait|edit|patch|annotate|label";

std::string kind_words() {
    std::string out;
    for (const auto& kind : resources::all_kinds())
        if (kind.stored) out += (out.empty() ? "" : " ") + kind.singular;
    return out;
}

/// What may stand before the command (words_for_cli11); each has a value.
constexpr const char* leading = "-n --namespace --kubeconfig";

/// One case for each command: those below it, its flags, and which of these have a value.
void cases(const std::vector<CommandWords>& commands, const std::string& above, std::string& names,
           std::string& flags, std::string& valued) {
    std::string below;
    for (const auto& command : commands) below += (below.empty() ? "" : " ") + command.name;
    names += fmt::format("      \"{}\") words=\"{}\" ;;\n", above, below);
    for (const auto& command : commands) {
        const auto path = above.empty() ? command.name : above + " " + command.name;
        std::string words;
        for (const auto& [flag, doc] : command.flags) words += (words.empty() ? "" : " ") + flag;
        flags += fmt::format("      \"{}\") words=\"{}\" ;;\n", path, words);
        valued += fmt::format("        \"{}\") valued=\"{}\" ;;\n", path, fmt::join(command.valued, " "));
        if (!command.commands.empty()) cases(command.commands, path, names, flags, valued);
    }
}

std::string bash_script(const std::vector<CommandWords>& commands) {
    std::string names, flags, valued;
    cases(commands, "", names, flags, valued);
    return fmt::format(R"(_penstock_names() {{
  penstock get "$@" --no-headers -o custom-columns=NAME:.metadata.name 2>/dev/null
}}
_penstock() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} path="" words="" valued="" flag="" word i rest=0 kind="" scope
  scope=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${{COMP_WORDS[i]}}
    if [[ $word == -* ]]; then
      case "$path" in
        "") valued="{}" ;;
{}        *) valued="" ;;
      esac
      flag=""
      # The shell has cut the word at its =.
      if [[ ${{COMP_WORDS[i + 1]}} == "=" ]]; then flag=$word; i=$((i + 2))
      elif [[ " $valued " == *" $word "* ]]; then flag=$word; i=$((i + 1))
      else case $word in --namespace=*|--kubeconfig=*) scope+=("$word") ;; esac; fi
      # What is completed is its value.
      [ $i -lt $COMP_CWORD ] || break
      case $flag in -n|--namespace|--kubeconfig) scope+=("$flag" "${{COMP_WORDS[i]}}") ;; esac
      # And a value at = and :, as in --from-literal=a=b.
      while [ -n "$flag" ] && [ $((i + 1)) -lt $COMP_CWORD ] && [[ ${{COMP_WORDS[i + 1]}} == [=:] ]]; do
        i=$((i + 2))
      done
      flag=""
      continue
    fi
    case "$path" in
{}      *) words="" ;;
    esac
    case " $words " in
      *" $word "*) path="${{path:+$path }}$word" ;;
      *) rest=$((rest + 1)); [ -n "$kind" ] || kind=$word ;;
    esac
  done
  words=""
  [ "$current" != "=" ] || current=""
  if [ -n "$flag" ]; then
    case $flag in -n|--namespace) words=$(_penstock_names namespace) ;; esac
    if [ -z "$words" ]; then COMPREPLY=($(compgen -f -- "$current")); return; fi
  elif [[ $current == -* ]]; then
    case "$path" in
{}    esac
  else
    case "$path" in
{}    esac
    case "$path" in
      {})
        if [ $rest -eq 0 ]; then words="{}"
        else words=$(_penstock_names "$kind" "${{scope[@]}}"); fi ;;
      logs) words=$(_penstock_names pod "${{scope[@]}}") ;;
      completion) words="bash zsh fish" ;;
    esac
    if [ -z "$words" ]; then COMPREPLY=($(compgen -f -- "$current")); return; fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _penstock penstock
)",
                       leading, valued, names, flags, names, by_kind, kind_words());
}

/// A text in fish's single quotes.
std::string fish_quoted(const std::string& text) {
    std::string out = "'";
    for (const char c : text) {
        if (c == '\'' || c == '\\') out += '\\';
        out += c;
    }
    return out + "'";
}

void fish_lines(const CommandWords& command, const std::string& condition, std::string& out) {
    out += fmt::format("complete -c penstock -n {} -a {} -d {}\n", fish_quoted(condition), command.name,
                       fish_quoted(command.doc));
}

/// The flags of a command, and what is below it. `seen`: the condition that it has been typed.
void fish_command(const CommandWords& command, const std::string& seen, std::string& out) {
    std::string below;
    for (const auto& inner : command.commands) below += " " + inner.name;
    for (const auto& inner : command.commands) {
        fish_lines(inner, fmt::format("{}; and not __fish_seen_subcommand_from{}", seen, below), out);
        fish_command(inner, fmt::format("{}; and __fish_seen_subcommand_from {}", seen, inner.name), out);
    }
    for (const auto& [flag, doc] : command.flags)
        out += fmt::format("complete -c penstock -n {} -l {} -d {}\n", fish_quoted(seen), flag.substr(2),
                           fish_quoted(doc));
}

std::string fish_script(const std::vector<CommandWords>& commands) {
    std::string out = "complete -c penstock -f\n";
    for (const auto& command : commands) {
        fish_lines(command, "__fish_use_subcommand", out);
        const auto seen = "__fish_seen_subcommand_from " + command.name;
        fish_command(command, seen, out);
        if (fmt::format("|{}|", by_kind).find("|" + command.name + "|") != std::string::npos)
            out += fmt::format("complete -c penstock -n '{}' -a '{}'\n", seen, kind_words());
    }
    out +=
        "complete -c penstock -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n"
        "complete -c penstock -n '__fish_seen_subcommand_from apply validate run' -F\n";
    return out;
}

/// `shell`: bash, zsh or fish.
int completion(const std::string& shell, const std::vector<CommandWords>& commands) {
    if (shell == "fish") {
        std::cout << "# penstock completion fish | source\n" << fish_script(commands);
        return 0;
    }
    if (shell != "bash" && shell != "zsh")
        return problem(fmt::format("\"{}\": completion is there for bash, zsh and fish", shell));
    std::cout << fmt::format("# source <(penstock completion {})\n", shell);
    // zsh reads bash's form.
    if (shell == "zsh")
        std::cout << "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n";
    std::cout << bash_script(commands);
    return 0;
}

}  // namespace

void add_completion(Commands& commands) {
    auto& shell = commands.keep<std::string>();
    auto command = commands.add("completion", "Completion for a shell: source <(penstock completion bash)");
    command.option("shell", shell, "bash, zsh or fish").required();
    command.runs([&commands, &shell] { return completion(shell, commands.words()); });
}

}  // namespace penstock::app
