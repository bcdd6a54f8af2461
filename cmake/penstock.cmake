# The only way to declare a target: a folder under src/ is one library, a test is one binary.
option(PENSTOCK_TESTS "Build the tests" ON)
option(PENSTOCK_BENCH "Build the micro benchmarks (Google Benchmark)" OFF)
option(PENSTOCK_FUZZ "Build the libFuzzer targets (clang)" OFF)
set(PENSTOCK_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread")

add_library(penstock_flags INTERFACE)
target_compile_options(penstock_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Werror
  # A designated initialiser names what differs from the default; g++ 12 would want every member.
  -Wno-missing-field-initializers
  # g++ 12 sees overlaps in operator+ of strings that are not there (GCC bug 105329).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  # libstdc++ 12's stable_sort uses what the library itself calls deprecated; clang tells it of our call.
  $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations>)
target_include_directories(penstock_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
if(PENSTOCK_SANITIZE)
  target_compile_options(penstock_flags INTERFACE -fsanitize=${PENSTOCK_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(penstock_flags INTERFACE -fsanitize=${PENSTOCK_SANITIZE})
  # Instrumented code makes g++'s flow analysis see uninitialised reads inside <regex> and <functional>.
  target_compile_options(penstock_flags INTERFACE -Wno-maybe-uninitialized)
  if(PENSTOCK_SANITIZE MATCHES "thread")
    # Boost.Asio and libstdc++ use fences that TSan does not model; gcc warns about each one.
    target_compile_options(penstock_flags INTERFACE -Wno-tsan)
  endif()
endif()
if(PENSTOCK_FUZZ)
  # What UndefinedBehaviorSanitizer finds ends the target: a line in its log alone would be seen by nobody.
  target_compile_options(penstock_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  target_link_options(penstock_flags INTERFACE -fsanitize=address,undefined)
endif()

# penstock_library(name DEPENDS ...): src/<name>/*.cc without *_test.cc.
function(penstock_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  add_library(penstock_${name} STATIC ${sources})
  target_link_libraries(penstock_${name} PUBLIC penstock_flags ${ARG_DEPENDS})
endfunction()

# penstock_test(name DEPENDS ... SOURCES ...): one GoogleTest binary known to ctest, case by case.
function(penstock_test name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;SOURCES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES} ${CMAKE_SOURCE_DIR}/tests/harness/main.cc)
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gtest)
  add_test(NAME ${name} COMMAND ${name} --gtest_brief=1)
  set_tests_properties(${name} PROPERTIES TIMEOUT 600)
endfunction()

# penstock_fuzz(name DEPENDS ...): fuzz/<name>.cc with libFuzzer's main.
function(penstock_fuzz name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  add_executable(${name} ${CMAKE_SOURCE_DIR}/fuzz/${name}.cc)
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()
