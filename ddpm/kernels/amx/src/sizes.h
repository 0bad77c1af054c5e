#pragma once

// Tells Python how many bytes a struct has here, so that its own mirror of it can be compared.
#define EXPORT_SIZE(Struct) \
  extern "C" int size_of_##Struct() { return int(sizeof(Struct)); }
