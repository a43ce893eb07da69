package answer

import (
	"regexp"
	"strings"
)

// maxBeginning is the length of the part of a line that people compare, in bytes.
const maxBeginning = 600

// arrow begins a line that could be taken for another relayed line.
const arrow = "↳ "

// blank matches white space, invisible characters and markup.
const blank = `[\s\p{Zs}\p{Cf}*_~|\\\x60]`

// The usual beginnings of relayed lines, with markup and invisible characters before them: a platform in brackets and a
// name, or a name and a colon.
var (
	bracketed = regexp.MustCompile(`^[^\pL\pN\[［【〔<＜]*(?:[\[［【〔]` + blank + `*[\pL\pN][^\n]{1,200}?[\]］】〕]|[<＜]` + blank + `*[\pL\pN][^:\n]{1,200}?[>＞])[*_~|\\)]*[\s\p{Zs}\p{Cf}]+[^\n:：]{1,100}[:：]`)
	named     = regexp.MustCompile(`^` + blank + `*[\pL\pN(@][^\n:：]{0,63}[:：](?:[\s\p{Zs}\p{Cf}*_~|\\]|$)`)
)

// forgeryPattern recognizes a line that could be taken for another relayed line.
type forgeryPattern struct {
	template bool           // the text holds people's words
	own      *regexp.Regexp // the beginning of the template's first line; nil for none
}

// shapeOf returns the pattern for a relayed text.
func shapeOf(w words, template bool) forgeryPattern {
	p := forgeryPattern{template: template}
	if !template {
		return p
	}
	first, _, _ := strings.Cut(w.text, "\n")
	runs := w.slice(0, len(first)).runs()
	for n := len(runs) - 1; n > 0; n-- {
		if runs[n].own[0] {
			continue
		}
		var b strings.Builder
		literal := ""
		b.WriteString("^" + blank + "*")
		for _, run := range runs[:n] {
			if !run.own[0] {
				b.WriteString(`[^\n]{1,100}?`)
				continue
			}
			literal += strings.TrimSpace(run.text)
			for _, word := range strings.SplitAfter(run.text, " ") {
				b.WriteString(regexp.QuoteMeta(strings.TrimSpace(word)))
				if strings.HasSuffix(word, " ") {
					b.WriteString(`[\s\p{Zs}]*`)
				}
			}
		}
		if literal != "" && len(literal) < 1000 {
			p.own, _ = regexp.Compile(b.String()) // nil if too large
		}
		return p
	}
	return p
}

// matches reports whether the first line of a text looks like a relayed line, and its beginning is not the operator's.
func (p forgeryPattern) matches(w words) bool {
	line, _, _ := strings.Cut(w.text, "\n")
	at := firstVisible(line)
	if at == len(line) || w.own[at] {
		return false
	}
	line = line[at:min(len(line), at+maxBeginning)]
	return bracketed.MatchString(line) || p.template && named.MatchString(line) || p.own != nil && p.own.MatchString(line)
}

// markForgedLines inserts the arrow into the lines of a relayed text that could be taken for other relayed lines. The
// first line and the lines of the operator's layout begin with people's names in some templates: they count only with a
// platform in brackets. Lines of a code block stay if the platform shows code blocks.
func (r Rendered) markForgedLines(codeBlocks bool) words {
	total, fences, counted := strings.Count(r.text, fence), 0, 0
	return r.rewrite(func(i int) (int, string) {
		if i > 0 && r.text[i-1] != '\n' {
			return 0, ""
		}
		fences += strings.Count(r.text[counted:i], fence)
		counted = i
		if codeBlocks && fences%2 == 1 && fences < total {
			return 0, "" // in a complete code block
		}
		shape := r.shape
		if i == 0 || r.own[i-1] {
			shape = forgeryPattern{}
		}
		if shape.matches(r.slice(i, len(r.text))) {
			return 0, arrow
		}
		return 0, ""
	})
}
