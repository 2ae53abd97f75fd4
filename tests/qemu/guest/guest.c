/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest without an operating system, that says whether its memory has survived.
 *
 * Each page holds a pattern of its own number and of how often it was written; how often is kept
 * beside the pages, in guest memory too. So a page that is lost, stale, misplaced or half
 * written does not agree with its count. At each tick the guest writes some pages, checks
 * some, and says on the serial line
 *
 *   ready pages=N
 *   tick N ok|BAD written=N checked=N slow=COUNT/SUM_US/MAX_US
 *   CORRUPT page=N word=N count=N seen=HEX wanted=HEX
 *
 * "slow": first touches of a page since the last tick that took longer than SLOW_US, which is
 * how a page fault of postcopy looks from inside. In between it sleeps, and takes no CPU.
 *
 * Parameters, on the kernel's command line as name=number: mib (memory with the pattern), hot
 * (MiB of it that are written to), writes and checks (pages/s), tick (ms). While the scratch
 * register of the serial port holds something else than 0, all pages are checked at each
 * tick: that is how somebody outside can have it done.
 *
 * Never divide by what the command line says without a look at it; nothing here catches a trap.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PAGE_WORDS 512
#define MIB_PAGES  256
#define SLOW_US    30
#define FIRST_PAGE (2ull << 20) /* this program lies below it */
#define SERIAL     0x3f8
#define SCRATCH    (SERIAL + 7)

extern char on_timer[];
void guest_main(const u8 *start_info);

/* ---- processor and devices ------------------------------------------------------------- */

static void out(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static u8 in(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static u64 ticks_per_us = 1;

static u64 cycles(void)
{
	u32 low, high;

	__asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

static u64 now_us(void)
{
	return cycles() / ticks_per_us;
}

/* The local APIC, whose timer counts nanoseconds down. */
enum {
	APIC_SPURIOUS = 0xf0,
	APIC_TIMER = 0x320,
	APIC_LINT0 = 0x350,
	APIC_LINT1 = 0x360,
	APIC_START = 0x380,
	APIC_LEFT = 0x390,
	APIC_DIVIDE = 0x3e0,
	APIC_MASKED = 0x10000,
	APIC_BY_ONE = 0xb,
	TIMER_VECTOR = 0x40,
	CALIBRATE_NS = 20000000,
};

static volatile u32 *apic(u32 at)
{
	return (volatile u32 *)(0xfee00000ull + at);
}

static struct gate {
	u16 offset_low, selector, kind, offset_middle;
	u32 offset_high, zero;
} gates[256];

static void start_timer(void)
{
	u64 handler = (u64)on_timer, begin;
	struct {
		u16 size;
		u64 base;
	} __attribute__((packed)) table = {sizeof(gates) - 1, (u64)gates};

	for (int i = 32; i < 256; i++) {
		gates[i].offset_low = (u16)handler;
		gates[i].selector = 8;
		gates[i].kind = 0x8e00; /* a present interrupt gate */
		gates[i].offset_middle = (u16)(handler >> 16);
		gates[i].offset_high = (u32)(handler >> 32);
	}
	__asm__ volatile("lidt %0" ::"m"(table));
	out(0x21, 0xff); /* nothing from the old interrupt controllers */
	out(0xa1, 0xff);
	*apic(APIC_SPURIOUS) = 0x1ff;
	*apic(APIC_DIVIDE) = APIC_BY_ONE;
	*apic(APIC_TIMER) = APIC_MASKED | TIMER_VECTOR;
	*apic(APIC_LINT0) = APIC_MASKED;
	*apic(APIC_LINT1) = APIC_MASKED;
	*apic(APIC_START) = ~0u;
	begin = cycles();
	while (~0u - *apic(APIC_LEFT) < CALIBRATE_NS) {}
	ticks_per_us = (cycles() - begin) / (CALIBRATE_NS / 1000);
	if (!ticks_per_us)
		ticks_per_us = 1;
	*apic(APIC_TIMER) = TIMER_VECTOR;
}

static void sleep_us(u64 us)
{
	*apic(APIC_START) = us ? (u32)us * 1000 : 1;
	__asm__ volatile("sti; hlt; cli" ::: "memory");
}

/* ---- serial line ----------------------------------------------------------------------- */

static char line[256];
static u32 line_length;

static void say(const char *text)
{
	while (*text)
		line[line_length++] = *text++;
}

static void say_number(const char *text, u64 value, u32 base)
{
	char digits[24];
	int n = 0;

	say(text);
	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (n)
		line[line_length++] = digits[--n];
}

static void end_line(void)
{
	line[line_length++] = '\n';
	for (u32 i = 0; i < line_length; i++) {
		while (!(in(SERIAL + 5) & 0x20)) {}
		out(SERIAL, (u8)line[i]);
	}
	line_length = 0;
}

/* ---- the pages ------------------------------------------------------------------------- */

static u64 *pages;
static u32 *counts; /* how often each was written */
static u64 page_count, hot_count;
static u64 written, checked, wrong;
static struct {
	u64 count, sum, max;
} slow;

static u64 random_number(void)
{
	static u64 state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* The word k of a page is pattern() + k * STEP. */
#define STEP 0x9e37ull

static u64 pattern(u64 page)
{
	return ((page + 1) * 0x9e3779b97f4a7c15ull) ^
	       ((counts[page] + 1ull) * 0xbf58476d1ce4e5b9ull);
}

static void touch(u64 page)
{
	u64 us, begin = cycles();

	(void)*(volatile u64 *)(pages + page * PAGE_WORDS);
	us = (cycles() - begin) / ticks_per_us;
	if (us <= SLOW_US)
		return;
	slow.count++;
	slow.sum += us;
	if (us > slow.max)
		slow.max = us;
}

static void fill(u64 page)
{
	u64 *word = pages + page * PAGE_WORDS, value = pattern(page);

	for (u32 k = 0; k < PAGE_WORDS; k++)
		word[k] = value + k * STEP;
}

static void write_page(u64 page)
{
	touch(page);
	counts[page]++;
	fill(page);
	written++;
}

static void check_page(u64 page)
{
	u64 *word = pages + page * PAGE_WORDS, value = pattern(page);

	touch(page);
	checked++;
	for (u32 k = 0; k < PAGE_WORDS; k++) {
		if (word[k] == value + k * STEP)
			continue;
		if (wrong++ < 20) {
			say_number("CORRUPT page=", page, 10);
			say_number(" word=", k, 10);
			say_number(" count=", counts[page], 10);
			say_number(" seen=", word[k], 16);
			say_number(" wanted=", value + k * STEP, 16);
			end_line();
		}
		return;
	}
}

/* The share of @rate pages/s that falls to this tick. */
static u64 share(u64 rate, u64 tick, u64 tick_ms)
{
	return rate * tick * tick_ms / 1000 - rate * (tick - 1) * tick_ms / 1000;
}

/* Writes and checks in turn, evenly mixed; checks go over all pages, in great strides. */
static void work(u64 writes, u64 checks)
{
	static u64 at;
	u64 done = 0;

	for (u64 i = 0; i < checks; i++) {
		for (; done < writes * (i + 1) / checks; done++)
			write_page(random_number() % hot_count);
		at = (at + 7919) % page_count;
		check_page(at);
	}
	for (; done < writes; done++)
		write_page(random_number() % hot_count);
}

static void report(u64 tick)
{
	say_number("tick ", tick, 10);
	say(wrong ? " BAD" : " ok");
	say_number(" written=", written, 10);
	say_number(" checked=", checked, 10);
	say_number(" slow=", slow.count, 10);
	say_number("/", slow.sum, 10);
	say_number("/", slow.max, 10);
	slow.count = slow.sum = slow.max = 0;
	end_line();
}

static u64 parameter(const char *text, const char *name, u64 otherwise)
{
	while (*text) {
		const char *t = text, *n = name;
		u64 value = 0;

		while (*n && *t == *n)
			t++, n++;
		if (!*n && *t == '=') {
			while (*++t >= '0' && *t <= '9')
				value = value * 10 + (u64)(*t - '0');
			return value;
		}
		while (*text && *text++ != ' ') {}
	}
	return otherwise;
}

static u64 at_least_one(u64 value)
{
	return value ? value : 1;
}

void guest_main(const u8 *start_info)
{
	const char *text = *(const char *const *)(start_info + 24); /* PVH's cmdline_paddr */
	u64 writes = parameter(text, "writes", 500), checks = parameter(text, "checks", 1000);
	u64 tick_ms = at_least_one(parameter(text, "tick", 20)), next;

	page_count = at_least_one(parameter(text, "mib", 60)) * MIB_PAGES;
	hot_count = at_least_one(parameter(text, "hot", 16)) * MIB_PAGES;
	if (hot_count > page_count)
		hot_count = page_count;
	counts = (u32 *)FIRST_PAGE;
	pages = (u64 *)(FIRST_PAGE + ((page_count * sizeof(*counts) + 0x1fffff) & ~0x1fffffull));
	out(SERIAL + 3, 3); /* eight bits, and no interrupts */
	out(SERIAL + 1, 0);
	out(SCRATCH, 0);
	start_timer();
	for (u64 page = 0; page < page_count; page++) {
		counts[page] = 0;
		fill(page);
	}
	say_number("ready pages=", page_count, 10);
	end_line();

	next = now_us();
	for (u64 tick = 1;; tick++) {
		u64 now;

		next += tick_ms * 1000;
		work(share(writes, tick, tick_ms),
		     in(SCRATCH) ? page_count : share(checks, tick, tick_ms));
		report(tick);
		now = now_us();
		if (now < next)
			sleep_us(next - now);
		else
			next = now; /* late: no ticks are made up for */
	}
}
