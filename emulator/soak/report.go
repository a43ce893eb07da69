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

// maxLogged bounds how many log lines of each part are shown for one violation.
const maxLogged = 5

// logged finds what the parts logged about an answer.
func (w *world) logged(ids ...string) (lines []string) {
	files, err := filepath.Glob(filepath.Join(w.Dir, "*.log"))
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range files {
		lines = append(lines, grep(name, ids)...)
	}
	return lines
}

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

// begin writes what is wrong, and begins the tables: row adds a row to them.
func begin(w io.Writer, wrong []Violation) (tw *tabwriter.Writer, row func(cells ...any)) {
	for _, v := range wrong {
		fmt.Fprintf(w, "VIOLATION: %s\n", v.What)
		for _, line := range v.History {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row = func(cells ...any) {
		for _, c := range cells {
			fmt.Fprintf(tw, "%v\t", c)
		}
		fmt.Fprintln(tw)
	}
	fmt.Fprintln(tw)
	return tw, row
}

// Write writes the report as tables for people.
func (r *Report) Write(w io.Writer) error {
	tw, row := begin(w, r.Violations)
	row("seed", r.Seed)
	row("time", r.Elapsed.Round(time.Second))
	row("gateways, one after the other", r.Gateways)
	row("connections", r.Connections)
	fmt.Fprintln(tw)
	row("questions sent", r.Sent)
	row("questions accepted", r.Accepted)
	row("not accepted before the user left", r.Forgone)
	row("messages on the egress topic", r.Egress)
	row("delivered", r.Delivered)
	for _, reason := range slices.Sorted(maps.Keys(r.Dead)) {
		row("dead-lettered: "+reason, r.Dead[reason])
	}
	row("longest wait for an answer", r.LongestWait.Round(time.Millisecond))
	row("came after the answer to a later question", r.Overtaken)
	fmt.Fprintln(tw)
	row("fault", "made", "met")
	total := 0
	for _, k := range Kinds {
		met := any("")
		if n, ok := r.Hits[k.Kind]; ok {
			met = n
		}
		row(k.Kind, r.Faults[k.Kind], met, k.Meaning)
		total += r.Faults[k.Kind]
	}
	row("all", total)
	fmt.Fprintln(tw)
	if d := r.Departed; r.Faults[Roll] > 0 {
		row("slowest end after SIGTERM", d.Slowest.Round(time.Millisecond))
		row("killed, 10 s after SIGTERM", d.Late)
		row("ended with an error", d.Failed)
		row("subscriptions left behind", d.LeftSubscriptions)
		fmt.Fprintln(tw)
	}
	row("other violations", len(r.Violations)-r.Lost-r.Doubled)
	row("LOST", r.Lost)
	row("DOUBLED", r.Doubled)
	return tw.Flush()
}

// Write writes the report as tables for people.
func (r *PlatformsReport) Write(w io.Writer) error {
	tw, row := begin(w, r.Violations)
	row("seed", r.Seed)
	row("time", r.Elapsed.Round(time.Second))
	row("gateways, one after the other", r.Gateways)
	for _, k := range PlatformFaults {
		row(k.Kind, r.Faults[k.Kind], k.Meaning)
	}
	fmt.Fprintln(tw)
	names := slices.Sorted(maps.Keys(r.Platforms))
	of := func(what string, number func(PlatformTally) any) {
		cells := []any{what}
		for _, name := range names {
			cells = append(cells, number(r.Platforms[name]))
		}
		row(cells...)
	}
	header := []any{""}
	for _, name := range names {
		header = append(header, name)
	}
	row(header...)
	of("questions asked", func(t PlatformTally) any { return t.Asked })
	of("heard", func(t PlatformTally) any { return t.Heard })
	of("  published again, as the same event", func(t PlatformTally) any { return t.Again })
	of("missed, in a recorded gap", func(t PlatformTally) any { return t.Missed })
	of("  while a gateway that was about to end was there", func(t PlatformTally) any { return t.Attended })
	of("answered once", func(t PlatformTally) any { return t.Answered })
	of("dead-lettered: outcome_unknown", func(t PlatformTally) any { return t.Unknown })
	of("  of these, said once", func(t PlatformTally) any { return t.UnknownSaid })
	of("dead-lettered: another reason", func(t PlatformTally) any { return t.Dead })
	of("said after the answer to a later question", func(t PlatformTally) any { return t.Overtaken })
	of("gaps recorded", func(t PlatformTally) any { return t.Gaps })
	of("  their time, all channels together", func(t PlatformTally) any { return t.GapTime.Round(time.Millisecond) })
	fmt.Fprintln(tw)
	row("other violations", len(r.Violations)-r.Lost-r.Doubled)
	row("LOST", r.Lost)
	row("DOUBLED", r.Doubled)
	return tw.Flush()
}
