/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * html.c -- the frame of a page, and text in it.
 *
 * It must never let text become markup: names, reasons and errors come from a peer, too.
 * Invariant: whatever is no literal of this program passes html_text(), or html_data().
 */
#include "tools/html.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* -- text -------------------------------------------------------------------------- */

/* Length of the UTF-8 sequence at @s, 1 to 4; 0: it is none that text may have. */
static unsigned sequence_len(const unsigned char *s)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned len = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	uint32_t code = len == 1 ? s[0] : s[0] & (0x7fu >> len);

	if (s[0] >= 0x80 && (s[0] < 0xc2 || s[0] > 0xf4))
		return 0;
	for (unsigned i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0; /* the NUL at the end, too */
		code = code << 6 | (s[i] & 0x3fu);
	}
	if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 0;
	if (code < ' ' && code != '\n' && code != '\t')
		return 0;
	return code >= 0x7f && code < 0xa0 ? 0 : len;
}

void html_text(FILE *out, const char *text)
{
	for (const unsigned char *s = (const unsigned char *)text; *s;) {
		unsigned len = sequence_len(s);
		const char *name = *s == '<'    ? "&lt;"
				   : *s == '>'  ? "&gt;"
				   : *s == '&'  ? "&amp;"
				   : *s == '"'  ? "&quot;"
				   : *s == '\'' ? "&#39;"
						: NULL;

		if (name)
			fputs(name, out);
		else if (len)
			fwrite(s, 1, len, out);
		else
			fputc('?', out);
		s += len ? len : 1;
	}
}

/* In a script "</script" would end it, and "<!--" begin something else. */
void html_data(FILE *out, json_t *data)
{
	char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(9));

	fputs("<script type=\"application/json\" id=\"data\">", out);
	for (const char *s = text ? text : "null"; *s; s++) {
		if (*s == '<' || *s == '>' || *s == '&')
			fprintf(out, "\\u%04x", (unsigned)*s);
		else
			fputc(*s, out);
	}
	fputs("</script>\n", out);
	free(text);
}

/* -- tables --------------------------------------------------------------------------- */

void html_table(FILE *out, const char *heading)
{
	fputs("<section><h2>", out);
	html_text(out, heading);
	fputs("</h2>\n<table class=\"list\">\n", out);
}

void html_row(FILE *out, const char *name, const char *fmt, ...)
{
	char text[1280];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fputs("<tr><th>", out);
	html_text(out, name);
	fputs("</th><td>", out);
	html_text(out, text);
	fputs("</td></tr>\n", out);
}

void html_table_end(FILE *out)
{
	fputs("</table></section>\n", out);
}

static void put_leaf(FILE *out, const char *path, json_t *value)
{
	char *text = json_is_string(value)
			     ? NULL
			     : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));

	fputs("<tr><th>", out);
	html_text(out, path);
	fputs("</th><td data-key=\"", out);
	html_text(out, path);
	fputs("\">", out);
	html_text(out, json_is_string(value) ? json_string_value(value) : text ? text : "?");
	fputs("</td></tr>\n", out);
	free(text);
}

/* No deeper than what this program makes. */
static void put_leaves(FILE *out, const char *path, json_t *value)
{
	const char *dot = *path ? "." : "", *key;
	char below[160];
	json_t *child;
	size_t i;

	if (json_is_object(value)) {
		json_object_foreach(value, key, child)
		{
			snprintf(below, sizeof(below), "%s%s%s", path, dot, key);
			put_leaves(out, below, child);
		}
	} else if (json_is_array(value)) {
		json_array_foreach(value, i, child)
		{
			snprintf(below, sizeof(below), "%s%s%zu", path, dot, i);
			put_leaves(out, below, child);
		}
	} else {
		put_leaf(out, path, value);
	}
}

void html_leaves(FILE *out, json_t *value)
{
	put_leaves(out, "", value);
}

/* -- the frame ------------------------------------------------------------------------- */

#define LIGHT                                                                                      \
	"--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d6dce2;--tile:#f5f7f9;--a:#0a62c4;"          \
	"--b:#b04a00;--ok:#1a7f37;--bad:#c21f2b;--pre:#dbeafe;--sw:#fde68a;--post:#d9f2e0;"        \
	"--hurt:#fbd5d5;--set:#e8ebee"

#define DARK                                                                                       \
	"--bg:#11151a;--fg:#e4e8ec;--dim:#9aa5b1;--line:#343c46;--tile:#1a2027;--a:#64aaff;"       \
	"--b:#f0964b;--ok:#4cc26d;--bad:#ff7b80;--pre:#16304f;--sw:#5b4a12;--post:#163d26;"        \
	"--hurt:#552426;--set:#262d36"

/* clang-format off */
static const char style[] =
	":root{color-scheme:light dark;" LIGHT "}\n"
	"@media (prefers-color-scheme:dark){:root{" DARK "}}\n"
	"@media print{:root{color-scheme:light;" LIGHT "}body{max-width:none}"
	"section,figure{break-inside:avoid}}\n"
	"*{box-sizing:border-box}\n"
	"body{margin:0 auto;padding:24px 20px;max-width:980px;background:var(--bg);color:var(--fg);"
	"font:15px/1.5 system-ui,sans-serif;print-color-adjust:exact;overflow-wrap:anywhere}\n"
	"h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:28px 0 8px}p{margin:4px 0}\n"
	".dim{color:var(--dim)}.ok{color:var(--ok)}.bad{color:var(--bad)}\n"
	".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:10px;"
	"margin:18px 0}\n"
	".tile{background:var(--tile);border:1px solid var(--line);border-radius:8px;"
	"padding:10px 12px}\n"
	".tile b{display:block;font-size:20px}.tile span{color:var(--dim);font-size:13px}\n"
	".box{border:1px solid var(--bad);border-radius:8px;padding:10px 14px;margin:14px 0}\n"
	"table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\n"
	"th,td{text-align:left;vertical-align:top;padding:4px 10px 4px 0;"
	"border-bottom:1px solid var(--line)}\n"
	".list th{font-weight:400;color:var(--dim);width:34%}.list td{white-space:pre-line}\n"
	".num th,.num td{text-align:right}"
	".num th:first-child,.num td:first-child{text-align:left}\n"
	".num th{font-weight:400;color:var(--dim)}\n"
	"figure{margin:8px 0 18px}figcaption{color:var(--dim);font-size:13px}\n"
	"svg{display:block;width:100%;height:auto}svg text{fill:var(--dim);font-size:12px}\n"
	".grid{stroke:var(--line);stroke-width:1}"
	".area{fill:var(--a);fill-opacity:.16;stroke:none}\n"
	".one{fill:none;stroke:var(--a);stroke-width:1.8}.two{fill:none;stroke:var(--b);"
	"stroke-width:1.8}\n"
	".bar{fill:var(--a)}.setup{fill:var(--set)}.precopy{fill:var(--pre)}.switch{fill:var(--sw)}"
	".postcopy{fill:var(--post)}.paused{fill:var(--hurt)}\n"
	".key{display:inline-block;width:12px;height:12px;border-radius:2px;margin:0 5px 0 14px;"
	"vertical-align:-1px}\n"
	".key.setup{background:var(--set)}.key.precopy{background:var(--pre)}"
	".key.switch{background:var(--sw)}.key.postcopy{background:var(--post)}"
	".key.paused{background:var(--hurt)}\n"
	".line{display:inline-block;width:18px;border-top:2px solid var(--a);margin:0 5px 0 14px;"
	"vertical-align:4px}.line.b{border-color:var(--b)}\n"
	".share{display:block;height:8px;border-radius:2px;background:var(--a);min-width:1px}\n"
	"@media (max-width:700px){body{padding:12px}.list th{width:44%}}\n";
/* clang-format on */

void html_begin(FILE *out, const char *title)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
	      "<meta http-equiv=\"Content-Security-Policy\" "
	      "content=\"default-src 'none';style-src 'unsafe-inline'\">\n<title>",
	      out);
	html_text(out, title);
	fprintf(out, "</title>\n<style>\n%s</style></head><body>\n", style);
}

void html_end(FILE *out)
{
	fputs("</body></html>\n", out);
}
