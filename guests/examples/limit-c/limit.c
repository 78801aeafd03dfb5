// Blocks chat requests that carry more than config `max_messages` messages, with status 429, and those that
// cannot be read, with 400.
//
// Speaks the LLMProxy protocol. Freestanding: no libc, no memory of its own. The input stays with the host
// and is read in one pass, however long it is.

#include <stdbool.h>
#include <stdint.h>

#define HOST(name) __attribute__((import_module("extism:host/env"), import_name(#name))) extern
HOST(input_length) uint64_t input_length(void);
HOST(input_load_u8) uint32_t input_load_u8(uint64_t at);
HOST(input_load_u64) uint64_t input_load_u64(uint64_t at);
HOST(alloc) uint64_t extism_alloc(uint64_t length);
HOST(store_u8) void store_u8(uint64_t at, uint32_t byte);
HOST(output_set) void output_set(uint64_t at, uint64_t length);
HOST(error_set) void error_set(uint64_t at);

enum { END = -1, BAD = -2 };

// Deeper input is refused, as the hosts' parsers do.
static const int depth_max = 128;

// A reader is a place in the input. `word` caches eight bytes of it, from `word_at` on.
typedef struct {
  uint64_t at, length, word, word_at;
} reader;

static int peek(reader *r) {
  if (r->at >= r->length) return END;
  uint64_t word_at = r->at & ~7ull;
  // A word that is not wholly inside the input reads as zero, so the last bytes come singly.
  if (word_at + 8 > r->length) return (int)input_load_u8(r->at);
  if (r->word_at != word_at) {
    r->word = input_load_u64(word_at);
    r->word_at = word_at;
  }
  return (int)(r->word >> (8 * (r->at & 7)) & 0xff);
}

static int take(reader *r) {
  int c = peek(r);
  if (c != END) r->at++;
  return c;
}

static int blanks(reader *r) {
  int c;
  while ((c = peek(r)) == ' ' || c == '\t' || c == '\n' || c == '\r') r->at++;
  return c;
}

static int hex(int c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : BAD;
}

// The next character of a string: its code below 0x80; 0x80 for any other; END after the closing quote.
static int character(reader *r) {
  int c = take(r);
  if (c == '"') return END;
  if (c == END || c < ' ') return BAD;
  if (c >= 0x80) return 0x80;
  if (c != '\\') return c;
  switch (c = take(r)) {
    case '"': case '\\': case '/': return c;
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'u': {
      int code = 0;
      for (int i = 0; i < 4; i++) {
        int digit = hex(take(r));
        if (digit == BAD) return BAD;
        code = code << 4 | digit;
      }
      return code < 0x80 ? code : 0x80;
    }
    default: return BAD;
  }
}

// Part of a number, true, false or null.
static bool is_atom(int c) {
  return c == '-' || c == '+' || c == '.' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool skip_string(reader *r) {
  int c;
  if (take(r) != '"') return false;
  while ((c = character(r)) >= 0) {}
  return c == END;
}

// Reads a member's name with its colon and tells which of the given names it is. The index of none of them
// is `count`; of no name at all, BAD.
static int name(reader *r, const char *const *names, int count) {
  uint32_t candidates = (1u << count) - 1;
  int c, length = 0;
  if (take(r) != '"') return BAD;
  for (; (c = character(r)) >= 0; length++)
    for (int i = 0; i < count; i++)
      // A candidate that has ended has its 0 here, which stands for no character but an escaped one.
      if (candidates >> i & 1 && (names[i][length] != c || c == 0)) candidates &= ~(1u << i);
  if (c != END || blanks(r) != ':') return BAD;
  r->at++;
  for (int i = 0; i < count; i++)
    if (candidates >> i & 1 && names[i][length] == 0) return i;
  return count;
}

// After an item: 1 when another follows, 0 when the closing bracket was taken, BAD otherwise.
static int more(reader *r, int closing) {
  int c = blanks(r);
  r->at++;
  if (c == closing) return 0;
  if (c != ',') return BAD;
  return blanks(r) == closing ? BAD : 1;
}

// Before the first item: the same, for the bracket that opens.
static int first(reader *r, int opening, int closing) {
  if (take(r) != opening) return BAD;
  if (blanks(r) != closing) return 1;
  r->at++;
  return 0;
}

// Goes over a value without recursion: the stack is short and the input is not ours.
static bool skip_value(reader *r) {
  int depth = 0;
  do {
    int c = blanks(r);
    if (c == '"') {
      if (!skip_string(r)) return false;
    } else if (c == '{' || c == '[') {
      if (++depth > depth_max) return false;
      r->at++;
    } else if (c == '}' || c == ']') {
      if (--depth < 0) return false;
      r->at++;
    } else if (c == ',' || c == ':') {
      if (depth == 0) return false;
      r->at++;
    } else {
      uint64_t start = r->at;
      while (is_atom(peek(r))) r->at++;
      if (r->at == start) return false;
    }
  } while (depth > 0);
  return true;
}

static const int64_t unset = -1;

typedef struct {
  int64_t messages, max_messages;
} findings;

// The number of elements of a list; 0 for any other value.
static bool count_elements(reader *r, int64_t *count) {
  int next;
  *count = 0;
  if (blanks(r) != '[') return skip_value(r);
  for (next = first(r, '[', ']'); next == 1; next = more(r, ']')) {
    if (!skip_value(r)) return false;
    ++*count;
  }
  return next == 0;
}

// A whole number, or `unset` for any other value.
static bool read_number(reader *r, int64_t *number) {
  int c = blanks(r);
  int64_t value = 0;
  *number = unset;
  if (c < '0' || c > '9') return skip_value(r);
  for (; (c = peek(r)) >= '0' && c <= '9'; r->at++)
    if (value < 1ll << 50) value = 10 * value + (c - '0');
  if (c == '.' || (c | 0x20) == 'e') return skip_value(r);
  *number = value;
  return true;
}

// Reads one member of an object that may be any other value, and skips the others. Of members with the same
// name the last one counts.
static bool read_member(reader *r, const char *wanted, bool (*read)(reader *, int64_t *), int64_t *into) {
  int next;
  *into = unset;
  if (blanks(r) != '{') return skip_value(r);
  for (next = first(r, '{', '}'); next == 1; next = more(r, '}')) {
    switch (name(r, &wanted, 1)) {
      case BAD: return false;
      case 0: if (!read(r, into)) return false; break;
      default: if (!skip_value(r)) return false;
    }
  }
  return next == 0;
}

static bool read_input(reader *r, findings *found) {
  static const char *const parts[] = {"body", "config"};
  int next;
  found->messages = found->max_messages = unset;
  blanks(r);
  for (next = first(r, '{', '}'); next == 1; next = more(r, '}')) {
    bool ok;
    switch (name(r, parts, 2)) {
      case BAD: return false;
      case 0: ok = read_member(r, "messages", count_elements, &found->messages); break;
      case 1: ok = read_member(r, "max_messages", read_number, &found->max_messages); break;
      default: ok = skip_value(r);
    }
    if (!ok) return false;
  }
  return next == 0 && blanks(r) == END;
}

// Writes text piece by piece into a block that is long enough for all of it.
typedef struct {
  uint64_t block, length;
} writer;

static const uint64_t text_max = 256;

static writer open_text(void) {
  return (writer){extism_alloc(text_max), 0};
}

static void put(writer *w, const char *text) {
  for (; *text && w->length < text_max; text++) store_u8(w->block + w->length++, (uint8_t)*text);
}

static void put_number(writer *w, int64_t number) {
  char digits[24];
  int at = sizeof digits;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + number % 10);
  while ((number /= 10) > 0);
  put(w, digits + at);
}

static int32_t answer(const char *text) {
  writer w = open_text();
  put(&w, text);
  output_set(w.block, w.length);
  return 0;
}

// The length of an error is that of its block, so this one is as long as its text.
static int32_t fail(const char *text) {
  uint64_t length = 0;
  while (text[length]) length++;
  uint64_t block = extism_alloc(length);
  for (uint64_t i = 0; i < length; i++) store_u8(block + i, (uint8_t)text[i]);
  error_set(block);
  return 1;
}

__attribute__((export_name("handle"))) int32_t handle(void) {
  reader r = {.length = input_length(), .word_at = UINT64_MAX};
  findings found;
  // Failing instead would leave it to the operator's failure policy whether the request passes.
  if (!read_input(&r, &found))
    return answer("{\"action\":\"block\",\"status_code\":400,\"error_type\":\"unreadable_body\","
                  "\"message\":\"the messages of this request cannot be counted: send valid JSON\"}");
  if (found.max_messages == unset) return fail("config `max_messages` must be a whole number");
  if (found.messages <= found.max_messages) return answer("{\"action\":\"passthrough\"}");
  writer w = open_text();
  put(&w, "{\"action\":\"block\",\"status_code\":429,\"error_type\":\"too_many_messages\",");
  put(&w, "\"message\":\"the request has ");
  put_number(&w, found.messages);
  put(&w, " messages, and at most ");
  put_number(&w, found.max_messages);
  put(&w, " are allowed\"}");
  output_set(w.block, w.length);
  return 0;
}
