#pragma once
#include <ostream>
#include <streambuf>
#include <string>
#include <string_view>

namespace penstock::app {

/// A stream's buffer that lets nothing through which steers a terminal: everything but text, line feeds, tabs and the colours of
/// coloured() is escaped as penstock::printable does it, whoever chose it (payloads, resources, servers). One thread.
class TerminalGuard final : public std::streambuf {
  public:
    /// `carriage_return`: passed on, for progress that overwrites its own line.
    TerminalGuard(std::streambuf* to, bool carriage_return) : to_(to), carriage_return_(carriage_return) {}

  protected:
    int_type overflow(int_type byte) override;
    std::streamsize xsputn(const char* text, std::streamsize size) override;
    int sync() override;

  private:
    void pass(std::string_view text, bool is_all);

    std::streambuf* to_;
    bool carriage_return_;
    std::string cut_;                    ///< the beginning of a UTF-8 character or a colour, until the rest comes
};

/// Puts a guard on standard output and standard error where they are terminals; pipes and files get the bytes as they are.
/// Call once, before anything is written.
void guard_terminals();

}  // namespace penstock::app
