package discord

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/answer"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

// fromTemplate is an answer of a rule. The parts of the template in braces are inserted.
func fromTemplate(source, template string) *event.Event {
	var text string
	var literal []answer.Span
	for rest := template; rest != ""; {
		own, after, _ := strings.Cut(rest, "{")
		literal = append(literal, answer.Span{len(text), len(text) + len(own)})
		inserted, after, _ := strings.Cut(after, "}")
		text += own + inserted
		rest = after
	}
	return &event.Event{
		Source: source, Channel: "discord:7", Egress: &event.Egress{Destination: "discord"},
		Candidates: []event.Candidate{{Text: text, Metadata: answer.TemplateMetadata(literal)}},
	}
}

func TestOnlyTheOperatorsMentionsNotify(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word ", 450)
	for _, tt := range []struct {
		template string
		want     []mentions // of each message
	}{
		{"hello", []mentions{{Parse: []string{}}}},
		{"@everyone", []mentions{{Parse: []string{"everyone"}}}},
		{"@here, <@&3100> and <@42>, <@!43>", []mentions{{Parse: []string{"everyone"}, Roles: []string{"3100"}, Users: []string{"42", "43"}}}},
		{"{@everyone} {<@42>} {<@&3100>}", []mentions{{Parse: []string{}}}},
		{"<@{42}> @{everyone} <@&{3100}>", []mentions{{Parse: []string{}}}},
		{"<@42> {<@43>}", []mentions{{Parse: []string{}, Users: []string{"42"}}}},
		{"@here {@everyone}", []mentions{{Parse: []string{"everyone"}}}}, // the guard is in the text
		{"<@42> " + long + "<@43>", []mentions{{Parse: []string{}, Users: []string{"42"}}, {Parse: []string{}, Users: []string{"43"}}}},
		{"<@99999999999999999999> <@0> <@&00>", []mentions{{Parse: []string{}}}}, // no ids: Discord would refuse them
	} {
		for _, source := range []string{Source, "ingress.twitch", "api-gateway"} {
			e := fromTemplate(source, tt.template)
			allowed := mentionsOf(e)
			var got []mentions
			for _, text := range messages(e) {
				got = append(got, allowed.in(text))
			}
			if diff := cmp.Diff(string(event.Raw(tt.want)), string(event.Raw(got))); diff != "" {
				t.Errorf("%.60q from %s (-want +got):\n%s", tt.template, source, diff)
			}
		}
	}
	model := &event.Event{Source: Source, Candidates: []event.Candidate{{Text: "@everyone <@42>"}}}
	if diff := cmp.Diff(mentions{Parse: []string{}}, mentionsOf(model)); diff != "" {
		t.Errorf("a model's (-want +got):\n%s", diff)
	}
	many := fromTemplate(Source, strings.Repeat("<@1>", 3)+"<@&2>"+mentionsOfUsers(150))
	if got := mentionsOf(many); len(got.Users) != maxMentions || len(got.Roles) != 1 {
		t.Errorf("%d users and %d roles; Discord permits %d", len(got.Users), len(got.Roles), maxMentions)
	}
}

func mentionsOfUsers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("<@" + snowflake(1000+i).String() + ">")
	}
	return b.String()
}

func TestOperatorsMentionsRing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start("a")
	w.connected()
	question := w.ask(w.room, "who is there?")
	literal := func(n int) func(*event.Event) {
		return func(e *event.Event) { e.Candidates[0].Metadata = answer.TemplateMetadata([]answer.Span{{0, n}}) }
	}
	owner := "<@" + w.owner.ID + ">"
	operators := w.answer(question, owner+", you are asked", literal(len(owner)))
	persons := w.answer(question, "Hello "+owner, literal(len("Hello ")))
	for _, a := range []answered{operators, persons} {
		w.reaches(a, delivery.Delivered)
	}
	for _, m := range w.sent(w.room.ID) {
		want := 0
		if m.Text == operators.text {
			want = 1
		}
		if len(m.Pings) != want || len(m.Mentions) != want {
			t.Errorf("%q mentions %v and rings %v; want %d", m.Text, m.Mentions, m.Pings, want)
		}
	}
}
