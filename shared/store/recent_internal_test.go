package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// chatter returns the last n events of a user who talks in a chat.
func chatter(n int) []Seen {
	var recent []Seen
	for i := range n {
		s := Seen{ID: NewSeenID(fmt.Sprint(i)), Tags: []string{"PROVIDER_TWITCH", "RETURNING_USER"}}
		if i%16 == 0 {
			s.Rules = []string{"welcome"}
		}
		recent = append(recent, s)
	}
	return recent
}

func TestPackedEventsReadBack(t *testing.T) {
	var names []string
	for i := range 300 { // more than one byte of a varint counts
		names = append(names, fmt.Sprint("rule-", i))
	}
	for name, want := range map[string][]Seen{
		"no events":    nil,
		"one event":    {{ID: NewSeenID("a"), Tags: []string{"NEW_USER"}}},
		"a full list":  chatter(64),
		"many rules":   {{ID: NewSeenID("a"), Tags: []string{"t"}, Rules: names}, {ID: NewSeenID("b"), Rules: names[200:]}},
		"odd strings":  {{ID: NewSeenID("a"), Tags: []string{"", "é", "\x00", strings.Repeat("x", 1500)}, Rules: []string{"moderation/moderator by hand"}}},
		"zero id":      {{}},
		"no decisions": {{ID: NewSeenID("a")}, {ID: NewSeenID("b")}},
	} {
		got, err := unpackRecent(packRecent(want))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, events (-want +got):\n%s", name, err, diff)
		}
	}
}

func TestDamagedPackedEventsCountAsAbsent(t *testing.T) {
	packed := packRecent(chatter(3))
	damaged := map[string][]byte{
		"another version":   append([]byte{packedVersion + 1}, packed[1:]...),
		"version alone":     packed[:1],
		"endless varint":    {packedVersion, 0xff, 0xff},
		"too many strings":  {packedVersion, 200},
		"too long a string": {packedVersion, 1, 9, 'a'},
		"unknown string":    append([]byte{packedVersion, 0, 1, 2, 3, 4, 5, 6, 7, 8}, 1, 0, 0),
		"cut event":         packed[:len(packed)-2],
	}
	old := legacyForm(chatter(1))
	for name, value := range damaged {
		if _, err := unpackRecent(value); err == nil {
			t.Errorf("%s: unpacked", name)
		}
		if diff := cmp.Diff(chatter(1), mergeRecent(value, old)); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
	}
}

func TestMergeAddsEventsOfAnOlderRevision(t *testing.T) {
	all := chatter(10)
	packed := packRecent(all[:8])
	for name, tt := range map[string]struct {
		packed []byte
		old    []legacySeen
		want   []Seen
	}{
		"neither form":            {nil, nil, nil},
		"older form alone":        {nil, legacyForm(all[:3]), all[:3]},
		"both forms":              {packed, legacyForm(all[:8]), all[:8]},
		"two events since":        {packed, append(legacyForm(all[:8]), legacyForm(all[8:])...), all},
		"newer form alone":        {packed, nil, all[:8]},
		"malformed ids left out":  {packed, []legacySeen{{ID: "short"}, {ID: strings.Repeat("z", 16)}, {}}, all[:8]},
		"only malformed ids":      {nil, []legacySeen{{ID: "0123"}}, nil},
		"older revision lost all": {packed, legacyForm(all[9:]), append(append([]Seen(nil), all[:8]...), all[9])},
	} {
		if diff := cmp.Diff(tt.want, mergeRecent(tt.packed, tt.old)); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzUnpackRecent(f *testing.F) {
	f.Add([]byte{})
	f.Add(packRecent(chatter(64)))
	f.Add(packRecent([]Seen{{Tags: []string{"", "é"}, Rules: []string{"r"}}}))
	f.Add([]byte{packedVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		recent, err := unpackRecent(data)
		if err != nil {
			return
		}
		again, err := unpackRecent(packRecent(recent))
		if err != nil || len(recent)+len(again) > 0 && !cmp.Equal(recent, again) {
			t.Errorf("not stable: %v\n%s", err, cmp.Diff(recent, again))
		}
	})
}

func BenchmarkPackRecent(b *testing.B) {
	recent := chatter(64)
	b.ReportAllocs()
	for b.Loop() {
		packRecent(recent)
	}
}

func BenchmarkUnpackRecent(b *testing.B) {
	packed := packRecent(chatter(64))
	b.SetBytes(int64(len(packed)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := unpackRecent(packed); err != nil {
			b.Fatal(err)
		}
	}
}
