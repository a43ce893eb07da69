package soak

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Summary holds the part of a report that both soaks share.
type Summary struct {
	Seed          uint64
	Elapsed       time.Duration
	Gateways      int // gateways started, replacements included
	Faults        map[Kind]int
	Lost, Doubled int // violations of these kinds
	Violations    []Violation
}

// Violation is a broken promise or another problem.
type Violation struct {
	What    string
	Lost    bool // counts as lost
	Doubled bool // counts as doubled
	History []string
}

// Clean reports whether there is no violation.
func (s *Summary) Clean() bool { return len(s.Violations) == 0 }

// maxHistories bounds the violations with a history.
const maxHistories = 25

// add counts and stores a violation. If traceable is true, the first violations get a history.
func (s *Summary) add(v Violation, traceable bool, history func() []string) {
	if v.Lost {
		s.Lost++
	}
	if v.Doubled {
		s.Doubled++
	}
	if len(s.Violations) < maxHistories && traceable {
		v.History = history()
	}
	s.Violations = append(s.Violations, v)
}

// sortViolations sorts the violations by text.
func (s *Summary) sortViolations() {
	slices.SortFunc(s.Violations, func(a, b Violation) int { return strings.Compare(a.What, b.What) })
}

// tables writes aligned tables.
type tables struct{ *tabwriter.Writer }

// row writes a row.
func (t tables) row(cells ...any) {
	for _, c := range cells {
		fmt.Fprintf(t, "%v\t", c)
	}
	fmt.Fprintln(t)
}

// head writes the violations and the first table of a report.
func (s *Summary) head(w io.Writer) tables {
	for _, v := range s.Violations {
		fmt.Fprintf(w, "VIOLATION: %s\n", v.What)
		for _, line := range v.History {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
	t := tables{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t)
	t.row("seed", s.Seed)
	t.row("time", s.Elapsed.Round(time.Second))
	t.row("gateways started", s.Gateways)
	return t
}

// foot writes the verdict of a report.
func (s *Summary) foot(t tables) error {
	t.row("other violations", len(s.Violations)-s.Lost-s.Doubled)
	t.row("LOST", s.Lost)
	t.row("DOUBLED", s.Doubled)
	return t.Flush()
}

// Write writes the report as tables.
func (r *ClientReport) Write(w io.Writer) error {
	t := r.head(w)
	t.row("connections", r.Connections)
	fmt.Fprintln(t)
	t.row("questions sent", r.Sent)
	t.row("questions accepted", r.Accepted)
	t.row("not accepted before the user left", r.Forgone)
	t.row("messages on the egress topic", r.Egress)
	t.row("delivered", r.Delivered)
	for _, reason := range slices.Sorted(maps.Keys(r.Dead)) {
		t.row("dead-lettered: "+reason, r.Dead[reason])
	}
	t.row("longest wait for an answer", r.LongestWait.Round(time.Millisecond))
	t.row("received after the answer to a later question", r.Overtaken)
	t.row("received, and dead: the client returned too late", r.Unrecorded)
	fmt.Fprintln(t)
	t.row("fault", "injected", "hits")
	total := 0
	for _, k := range Kinds {
		hits := any("")
		if n, ok := r.Hits[k.Kind]; ok {
			hits = n
		}
		t.row(k.Kind, r.Faults[k.Kind], hits, k.Meaning)
		total += r.Faults[k.Kind]
	}
	t.row("all", total)
	fmt.Fprintln(t)
	if d := r.Departed; r.Faults[Roll] > 0 {
		t.row("slowest end after SIGTERM", d.Slowest.Round(time.Millisecond))
		t.row("killed 10 s after SIGTERM", d.Late)
		t.row("ended with an error", d.Failed)
		t.row("subscriptions left behind", d.LeftSubscriptions)
		fmt.Fprintln(t)
	}
	return r.foot(t)
}

// Write writes the report as tables.
func (r *PlatformReport) Write(w io.Writer) error {
	t := r.head(w)
	for _, k := range PlatformKinds {
		t.row(k.Kind, r.Faults[k.Kind], k.Meaning)
	}
	fmt.Fprintln(t)
	platforms := slices.Sorted(maps.Keys(r.Platforms))
	header := []any{""}
	for _, p := range platforms {
		header = append(header, p)
	}
	t.row(header...)
	for _, line := range []struct {
		label  string
		number func(PlatformTally) any
	}{
		{"questions asked", func(t PlatformTally) any { return t.Asked }},
		{"ingested", func(t PlatformTally) any { return t.Ingested }},
		{"  published again, as the same event", func(t PlatformTally) any { return t.Repeated }},
		{"missed, in a recorded gap", func(t PlatformTally) any { return t.Missed }},
		{"  in a channel joined by a gateway about to end", func(t PlatformTally) any { return t.MissedJoined }},
		{"answered once", func(t PlatformTally) any { return t.Answered }},
		{"dead-lettered: outcome_unknown", func(t PlatformTally) any { return t.Unknown }},
		{"  of these, posted once", func(t PlatformTally) any { return t.UnknownPosted }},
		{"dead-lettered: another reason", func(t PlatformTally) any { return t.Dead }},
		{"posted after the answer to a later question", func(t PlatformTally) any { return t.Overtaken }},
		{"gaps recorded", func(t PlatformTally) any { return t.Gaps }},
		{"  duration, all channels together", func(t PlatformTally) any { return t.GapTime.Round(time.Millisecond) }},
	} {
		cells := []any{line.label}
		for _, p := range platforms {
			cells = append(cells, line.number(r.Platforms[p]))
		}
		t.row(cells...)
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Dead)) {
		t.row("  "+reason, r.Dead[reason])
	}
	fmt.Fprintln(t)
	return r.foot(t)
}

// maxLogged bounds the log lines of each part in a history.
const maxLogged = 5

// logged returns the log lines of all parts that contain one of the ids.
func (h *harness) logged(ids ...string) (lines []string) {
	files, err := filepath.Glob(filepath.Join(h.Dir, "*.log"))
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range files {
		lines = append(lines, grep(name, ids)...)
	}
	return lines
}

// grep returns the first lines of a file that contain one of the ids. Empty ids are ignored.
func grep(name string, ids []string) (lines []string) {
	f, err := os.Open(name)
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan() && len(lines) < maxLogged; {
		if slices.ContainsFunc(ids, func(id string) bool { return id != "" && strings.Contains(scanner.Text(), id) }) {
			lines = append(lines, filepath.Base(name)+": "+scanner.Text())
		}
	}
	return lines
}
