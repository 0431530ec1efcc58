//! System call policy as data, compiled to classic BPF; with an evaluator and a disassembler. Pure.
