// Drives the matrix unit from a script on standard input and prints what it did.
//
// The script is one command a line, in this order, numbers in hexadecimal:
//   scratchpad ADDRESS BYTES...    weights ADDRESS BYTES...    one aligned word each
//   push CYCLE WORD                a 64-byte instruction, least significant byte first
//   signal CYCLE MASK              other units' signals
//   run CYCLES FIRST COUNT         runs, then reads accumulators, one per cycle
// A line of output: "take|streamed|retire CYCLE", "signal CYCLE MASK" or "sum VALUE".
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "Vmatrix_unit.h"
#include "verilated.h"

namespace {

using Bytes = std::vector<uint8_t>;

Bytes parse_bytes(const std::string& text) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoul(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

// Ports are integers up to 64 bits, and arrays of 32-bit parts beyond.
template <class Port>
void assign(Port& port, const Bytes& bytes) {
  if constexpr (std::is_integral_v<Port>) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); i++) value |= uint64_t{bytes[i]} << (8 * i);
    port = static_cast<Port>(value);
  } else {
    for (size_t i = 0; i < bytes.size() / 4; i++)
      port[i] = bytes[4 * i] | bytes[4 * i + 1] << 8 | bytes[4 * i + 2] << 16 |
                static_cast<uint32_t>(bytes[4 * i + 3]) << 24;
  }
}

class Bench {
 public:
  void edge() {
    unit_.clock = 1;
    unit_.eval();
    unit_.clock = 0;
    unit_.eval();
  }

  void reset() {
    unit_.reset = 1;
    edge();
    edge();
  }

  void write(const std::string& memory, uint64_t address, const Bytes& word) {
    const bool is_weights = memory == "weights";
    unit_.scratchpad_write = !is_weights;
    unit_.weights_write = is_weights;
    unit_.scratchpad_address = unit_.weights_address = static_cast<uint32_t>(address);
    if (is_weights)
      assign(unit_.weights_word, word);
    else
      assign(unit_.scratchpad_word, word);
    edge();
    unit_.scratchpad_write = unit_.weights_write = 0;
  }

  void run(uint64_t cycles) {
    unit_.reset = 0;
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
      const auto pushed = pushes.find(cycle);
      unit_.push_valid = pushed != pushes.end();
      if (unit_.push_valid) assign(unit_.push_word, pushed->second);
      const auto signalled = signals.find(cycle);
      unit_.signal_in = signalled == signals.end() ? 0 : signalled->second;
      unit_.eval();
      report(cycle);
      edge();
    }
    unit_.push_valid = 0;
  }

  void print_sums(uint64_t first, uint64_t count) {
    unit_.accumulator_read = 1;
    for (uint64_t i = first; i < first + count; i++) {
      unit_.accumulator_address = static_cast<uint32_t>(i);
      edge();
      std::printf("sum %d\n", static_cast<int32_t>(unit_.accumulator_value));
    }
  }

  std::map<uint64_t, Bytes> pushes;
  std::map<uint64_t, uint64_t> signals;

 private:
  void report(uint64_t cycle) {
    const auto at = static_cast<unsigned long long>(cycle);
    if (unit_.push_valid && !unit_.push_ready) std::printf("refused %llu\n", at);
    if (unit_.taken) std::printf("take %llu\n", at);
    if (unit_.streamed) std::printf("streamed %llu\n", at);
    if (unit_.retired) std::printf("retire %llu\n", at);
    if (unit_.signal_out)
      std::printf("signal %llu %llx\n", at, static_cast<unsigned long long>(unit_.signal_out));
  }

  Vmatrix_unit unit_;
};

}  // namespace

int main(int argc, char** argv) {
  Verilated::commandArgs(argc, argv);
  Bench bench;
  bench.reset();
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string command, text;
    uint64_t number = 0;
    words >> command >> std::hex >> number >> text;
    if (command == "push")
      bench.pushes[number] = parse_bytes(text);
    else if (command == "signal")
      bench.signals[number] |= std::stoull(text, nullptr, 16);
    else if (command == "run") {
      bench.run(number);
      words >> number;
      bench.print_sums(std::stoull(text, nullptr, 16), number);
    } else {
      bench.write(command, number, parse_bytes(text));
    }
  }
  return 0;
}
