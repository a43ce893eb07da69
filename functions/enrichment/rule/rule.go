// Package rule compiles the operators' rules and evaluates them for events. Start at [Compile] and [Set.Evaluate]. The
// package computes results only: it reads and writes no stores, and sends nothing.
//
// A condition and the {{ parts }} of a text are CEL expressions (https://github.com/google/cel-spec) over one variable,
// event, with the strings extension (https://pkg.go.dev/github.com/google/cel-go/ext#Strings). Every member of the wire
// format exists. A member missing from the event has its zero value: "", 0, false, an empty list or map, the Unix
// epoch. So event.message.text.startsWith("!ask ") and "moderator" in event.user.roles are true or false, and never
// fail.
//
// Roles count where they were given. event.user.roles holds the roles given by hand, and the roles given by the platform
// in the place of the event: the Twitch channel, or the Discord guild. A whisper, a direct message and a web room have
// only roles given by hand. event.user.rolesIn holds the platforms' roles by place, "twitch:<login>" or
// "discord:<guild id>", and by the channel of the event. The list event.user.rolesIn[event.channel] always exists, so
// "moderator" in event.user.rolesIn[event.channel] never fails. A different place may be missing:
//
//	"twitch:ada" in event.user.rolesIn && "moderator" in event.user.rolesIn["twitch:ada"]
//
// Member names are checked at compile time: event.mesage is an error, instead of a rule that silently never holds. Only
// payload, metadata, message.rawPlatformPayload, externalEvent.payload and externalEvent.rawPayload are dynamic. A
// dynamic member may be missing; has(event.payload.amount) tests for presence. For entries of the routing slip,
// annotations, candidates and errors, expressions see only the identifying members.
//
// A number in a dynamic member is an int (or a uint, if too large) if it is a whole number, and else a double. An int is
// exact, and a text shows all its digits: {{ event.payload.points }} is 1000000 for 1000000. Comparisons work between all
// types of numbers. Arithmetic needs one type, as in CEL: double(event.payload.amount) * 1.5. If an expression does not fit
// these types, it sees every number as a double, as in earlier revisions: event.payload.amount * 1.5 works, too. A
// division of dynamic numbers is always a division of doubles. A number outside of all ranges, such as 1e400, is an error
// where an expression uses it, and does not affect other members.
//
// All rules see the event without the additions of rules, so no rule depends on another.
//
// The cost of an expression is bounded, and so is the size of a rule's additions. A rule that fails to compile, or fails
// for an event, adds nothing and does not affect other rules. A failed rule that holds and has an action is marked, so
// that the caller can report the action: see [Failure].
package rule

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Personality is the only step that a rule can request: a model's answer.
const Personality = "personality"

// audienceChannel is the audience of an answer to everybody in the channel.
const audienceChannel = "channel"

const (
	// costLimit bounds the cost of one expression in CEL's units: about one for each operation, and one for each ten
	// characters searched. A rule over a chat line costs some tens. A search of the longest event costs 26,000.
	costLimit = 30_000

	// maxExpression bounds the characters of an expression, and so of every regular expression in an expression.
	maxExpression = 4 << 10

	// maxText bounds the characters of a filled-in answer. No platform accepts more in one message: Discord 2,000,
	// Twitch 500.
	maxText = 4000

	// maxSource bounds the bytes of an annotation or of a candidate's template. maxAdded bounds the annotations, and
	// the candidates, of one rule. maxTotal bounds the bytes added to an event by all rules: an event larger than
	// event.MaxSize could not be published.
	maxSource = 8 << 10
	maxAdded  = 8
	maxTotal  = 64 << 10

	// maxCooldown bounds the lifetime of an entry in a user document.
	maxCooldown = 30 * 24 * time.Hour
)

// Failure is a failed compilation or evaluation of a rule.
type Failure struct {
	ID         string
	Err        error // may quote the event
	LostAction bool  // the rule holds for the event and has an action, which is therefore not done
}

// Set holds compiled rules in evaluation order: by priority, then by id. A Set is immutable and safe for concurrent use.
type Set struct {
	rules []*compiled
	raw   bool // some rule uses a raw JSON member
}

// Len is the number of rules in the set.
func (s *Set) Len() int { return len(s.rules) }

// compiled is a rule with its programs.
type compiled struct {
	store.Rule
	when   *expression
	texts  [][]piece // by candidate
	action *action   // nil for none
}

// piece is a part of a compiled template.
type piece struct {
	literal string
	program *expression // nil for a literal
}

// environment returns the CEL environment shared by all rules. Creating it takes longer than compiling one rule.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[*view](), ext.ParseStructTags(true)),
		withDynamicFields,
		ext.Strings(),
		cel.Variable("event", cel.ObjectType("rule.view")),
		cel.CrossTypeNumericComparisons(true), // a raw JSON number may be a double, a literal an int
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	)
})

// Compile compiles the enabled rules. Rules that fail to compile are missing in the set and reported as failures.
// Unchanged rules are reused from previous, which may be nil.
func Compile(rules []store.Rule, previous *Set) (*Set, []Failure) {
	s := &Set{}
	var failures []Failure
	for _, r := range rules {
		if !r.Enabled {
			continue
		}
		c := previous.unchanged(r)
		if c == nil {
			var err error
			if c, err = compile(r); err != nil {
				failures = append(failures, Failure{ID: r.ID, Err: err})
				continue
			}
		}
		s.rules = append(s.rules, c)
		s.raw = s.raw || usesRawJSON(r)
	}
	slices.SortFunc(s.rules, func(a, b *compiled) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), strings.Compare(a.ID, b.ID))
	})
	return s, failures
}

// unchanged returns the compiled form of an equal rule, or nil.
func (s *Set) unchanged(r store.Rule) *compiled {
	if s == nil {
		return nil
	}
	for _, c := range s.rules {
		if c.ID == r.ID && reflect.DeepEqual(c.Rule, r) {
			return c
		}
	}
	return nil
}

// usesRawJSON reports whether a rule may use a raw JSON member. A literal text with such a name gives a false positive.
func usesRawJSON(r store.Rule) bool {
	mentions := func(s string) bool { return strings.Contains(s, "ayload") || strings.Contains(s, "metadata") }
	return mentions(r.When) || r.Action != nil && slices.ContainsFunc(actionTemplates(r.Action), mentions) || slices.ContainsFunc(r.Candidates, func(c store.RuleCandidate) bool { return mentions(c.Text) })
}

// compile validates and compiles one rule.
func compile(r store.Rule) (c *compiled, err error) {
	defer recoverInto(&err)
	if err := check(r); err != nil {
		return nil, err
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("CEL: %w", err)
	}
	c = &compiled{Rule: r}
	if c.when, err = program(env, r.When, cel.BoolType); err != nil {
		return nil, fmt.Errorf("when: %w", err)
	}
	for i, candidate := range r.Candidates {
		pieces, err := compileTemplate(env, candidate.Text)
		if err != nil {
			return nil, fmt.Errorf("candidates.%d.text: %w", i, err)
		}
		c.texts = append(c.texts, pieces)
	}
	if r.Action != nil {
		if c.action, err = compileAction(env, r.Action); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// check validates the parts of a rule apart from expressions.
func check(r store.Rule) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	finite := func(field string, f *float64) {
		if f != nil && (math.IsNaN(*f) || math.IsInf(*f, 0)) {
			bad("%s: not a finite number", field) // JSON cannot express the value, so the event could not be published
		}
	}
	if len(r.Annotations)+len(r.Candidates)+len(r.Slip) == 0 && r.Action == nil {
		bad("adds nothing: no annotations, candidates, slip or action")
	}
	if len(r.Annotations) > maxAdded || len(r.Candidates) > maxAdded {
		bad("more than %d annotations or candidates", maxAdded)
	}
	finite("priority", &r.Priority)
	for i, a := range r.Annotations {
		if a.Kind == "" {
			bad("annotations.%d.kind: missing", i)
		}
		if len(a.Kind)+len(a.Value)+len(a.Label)+len(a.Text)+len(a.Name) > maxSource {
			bad("annotations.%d: longer than %d bytes", i, maxSource)
		}
		finite(fmt.Sprintf("annotations.%d.score", i), a.Score)
	}
	for i, c := range r.Candidates {
		if c.Text == "" {
			bad("candidates.%d.text: missing", i)
		}
		if len(c.Text)+len(c.Kind) > maxSource {
			bad("candidates.%d: longer than %d bytes", i, maxSource)
		}
		finite(fmt.Sprintf("candidates.%d.priority", i), c.Priority)
		finite(fmt.Sprintf("candidates.%d.confidence", i), c.Confidence)
	}
	for i, s := range r.Slip {
		if s != Personality {
			bad("slip.%d: %q is not a known step (%s)", i, s, Personality)
		}
	}
	if r.Cooldown < 0 || r.Cooldown > int64(maxCooldown/time.Second) {
		bad("cooldownSeconds: not between 0 and %d", int64(maxCooldown/time.Second))
	}
	if g := r.Egress; g != nil {
		if g.Destination != "" && !identity.Platform(g.Destination).Known() {
			bad("egress.destination: %q is not a platform", g.Destination)
		}
		switch g.Type {
		case "", event.EgressChat, event.EgressDM, event.EgressEvent:
		default:
			bad("egress.type: %q is not chat, dm or event", g.Type)
		}
		switch {
		case g.Audience == audienceChannel && len(r.Slip) > 0:
			bad("egress.audience: channel is not allowed together with slip")
		case g.Audience != "" && g.Audience != "user" && g.Audience != audienceChannel:
			bad("egress.audience: %q is not user or channel", g.Audience)
		}
		if len(r.Candidates)+len(r.Slip) == 0 {
			bad("egress: the rule has neither candidates nor slip")
		}
		errs = append(errs, checkAddresses(g))
	}
	return errors.Join(errs...)
}

// program compiles an expression and requires a value of one of the wanted types.
func program(env *cel.Env, source string, want ...*cel.Type) (*expression, error) {
	ast, issues := env.Compile(source)
	if err := issues.Err(); err != nil {
		return nil, err
	}
	if t := ast.OutputType(); t.Kind() != types.DynKind && !slices.ContainsFunc(want, t.IsExactType) {
		return nil, fmt.Errorf("is a %s, not a %s", t, want[0])
	}
	p, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit))
	if err != nil {
		return nil, err
	}
	return &expression{program: p, first: firstNumbers(ast)}, nil
}

// compileTemplate compiles the expressions of a template.
func compileTemplate(env *cel.Env, text string) ([]piece, error) {
	parts, err := split(text)
	if err != nil {
		return nil, err
	}
	var pieces []piece
	for _, p := range parts {
		if !p.isExpr {
			pieces = append(pieces, piece{literal: p.literal})
			continue
		}
		program, err := program(env, p.expression, cel.StringType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType, cel.TimestampType, cel.DurationType, cel.NullType)
		if err != nil {
			return nil, fmt.Errorf("{{ %s }}: %w", p.expression, err)
		}
		pieces = append(pieces, piece{program: program})
	}
	return pieces, nil
}

// recoverInto turns a panic into an error. CEL recovers panics of an evaluation itself, but not of every call here.
func recoverInto(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}
