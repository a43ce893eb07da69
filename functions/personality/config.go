package personality

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
)

// Config is everything that the function is told by its environment.
type Config struct {
	Deployment config.Deployment
	Egress     delivery.Config
	Prompt     PromptConfig
	Memory     MemoryConfig
	Model      ModelConfig
	Reply      ReplyConfig
}

// Composition says how the personalities' texts and the base prompt become one instruction.
type Composition string

// The compositions. Where no personality has a text, each gives the base prompt alone.
const (
	Append  Composition = "append"  // the base prompt, then the personalities
	Prepend Composition = "prepend" // the personalities, then the base prompt
	Replace Composition = "replace" // the personalities alone
)

// PromptConfig says what a model is told and asked.
type PromptConfig struct {
	Base           string        `env:"PERSONALITY_BASE_PROMPT" envDefault:"You are Parley, a member of a chat community. You answer briefly and kindly, in plain text." help:"Instruction that every answer begins with, whatever the personality."`
	Composition    Composition   `env:"PERSONALITY_COMPOSITION" envDefault:"append" help:"How a personality and the base prompt meet: append, prepend or replace."`
	MaxAnnotations int           `env:"PERSONALITY_MAX_ANNOTATIONS" envDefault:"5" help:"The most personalities that shape one answer; further ones are dropped."`
	MaxChars       int           `env:"PERSONALITY_MAX_CHARS" envDefault:"4000" help:"The most characters of one personality's text; the rest is cut off."`
	MaxQuestion    int           `env:"PERSONALITY_MAX_QUESTION" envDefault:"4000" help:"The most characters of a question that a model is given; the rest is cut off."`
	CacheTTL       time.Duration `env:"PERSONALITY_CACHE_TTL" envDefault:"1m" help:"How long a personality, or that there is none of a name, is remembered."`
	CommandPrefix  string        `env:"PERSONALITY_COMMAND_PREFIX" envDefault:"!" help:"A question's leading word that begins with this (!ask) is not put to the model; empty for none."`
	Mentions       []string      `env:"PERSONALITY_MENTIONS" envDefault:"@parley" help:"Names, separated by commas, that are not put to the model where a question begins with one."`
}

// Validate checks what the types cannot.
func (c PromptConfig) Validate() error {
	var errs []error
	switch c.Composition {
	case Append, Prepend, Replace:
	default:
		errs = append(errs, fmt.Errorf("PERSONALITY_COMPOSITION: %q is not append, prepend or replace", c.Composition))
	}
	if c.MaxAnnotations < 1 || c.MaxAnnotations > 50 {
		errs = append(errs, fmt.Errorf("PERSONALITY_MAX_ANNOTATIONS: %d is not between 1 and 50", c.MaxAnnotations))
	}
	if c.MaxChars < 1 {
		errs = append(errs, fmt.Errorf("PERSONALITY_MAX_CHARS: %d is less than 1", c.MaxChars))
	}
	if c.MaxQuestion < 1 {
		errs = append(errs, fmt.Errorf("PERSONALITY_MAX_QUESTION: %d is less than 1", c.MaxQuestion))
	}
	if c.CacheTTL <= 0 {
		errs = append(errs, fmt.Errorf("PERSONALITY_CACHE_TTL: %s is not greater than 0", c.CacheTTL))
	}
	return errors.Join(errs...)
}

// MemoryConfig says what is remembered of one user in one channel.
type MemoryConfig struct {
	Turns     int           `env:"MEMORY_TURNS" envDefault:"6" help:"How many questions, with their answers, a model is reminded of; 0 for none."`
	Retention time.Duration `env:"MEMORY_RETENTION" envDefault:"24h" help:"How long a conversation is remembered after its last turn."`
}

// Validate checks what the types cannot.
func (c MemoryConfig) Validate() error {
	var errs []error
	if c.Turns < 0 || c.Turns > maxTurns {
		errs = append(errs, fmt.Errorf("MEMORY_TURNS: %d is not between 0 and %d", c.Turns, maxTurns))
	}
	if c.Retention <= 0 {
		errs = append(errs, fmt.Errorf("MEMORY_RETENTION: %s is not greater than 0", c.Retention))
	}
	return errors.Join(errs...)
}

// maxTurns keeps a conversation, with maxRemembered characters in each half of a turn, well below the 1 MiB of a
// Firestore document (https://firebase.google.com/docs/firestore/quotas).
const maxTurns = 50

// The providers of models.
const (
	ProviderEmbedded = "embedded"
	ProviderGemini   = "gemini"
	ProviderOpenAI   = "openai"
)

// ModelConfig says which model answers.
type ModelConfig struct {
	Provider  string        `env:"MODEL_PROVIDER" envDefault:"embedded" help:"Who words the answers: embedded (needs nothing, understands nothing), gemini, or openai (any endpoint of that protocol)."`
	Name      string        `env:"MODEL_NAME" help:"The model, as its provider calls it. Required, except for the embedded one: names are retired too often for a default."`
	BaseURL   string        `env:"MODEL_BASE_URL" help:"Where the provider's API is, if not at its usual place: http://localhost:11434/v1 for example."`
	GeminiKey Secret        `env:"GEMINI_API_KEY" help:"Key of the Gemini API. Without one, Gemini is used by way of Vertex AI as the service account."`
	OpenAIKey Secret        `env:"OPENAI_API_KEY" help:"Key of the OpenAI API, or of the endpoint at MODEL_BASE_URL if that wants one."`
	Location  string        `env:"VERTEX_LOCATION" envDefault:"global" help:"Where Vertex AI computes: global, or a region."`
	Timeout   time.Duration `env:"MODEL_TIMEOUT" envDefault:"30s" help:"How long one call of the model may take; at most 60s."`
	RetryFor  time.Duration `env:"MODEL_RETRY_FOR" envDefault:"2m" help:"A message for which the model fails is tried again until it is this old, then dead-lettered as model_failed."`
	MaxTokens int           `env:"MODEL_MAX_TOKENS" envDefault:"1024" help:"The most tokens that the model may spend on one answer; 0 leaves it to the provider."`
}

// maxTimeout leaves the acknowledgement deadline of the subscription (120 s) enough time for publishing (30 s) and for
// Firestore.
const maxTimeout = 60 * time.Second

// Validate checks what the types cannot.
func (c ModelConfig) Validate() error {
	var errs []error
	switch c.Provider {
	case ProviderEmbedded:
	case ProviderGemini, ProviderOpenAI:
		if c.Name == "" {
			errs = append(errs, fmt.Errorf("MODEL_NAME: required for MODEL_PROVIDER=%s", c.Provider))
		}
		if c.Provider == ProviderOpenAI && c.OpenAIKey == "" && c.BaseURL == "" {
			errs = append(errs, errors.New("OPENAI_API_KEY: required where MODEL_BASE_URL is not set"))
		}
		if c.Provider == ProviderGemini && c.GeminiKey == "" && c.Location == "" {
			errs = append(errs, errors.New("VERTEX_LOCATION: required where GEMINI_API_KEY is not set"))
		}
	default:
		errs = append(errs, fmt.Errorf("MODEL_PROVIDER: %q is not embedded, gemini or openai", c.Provider))
	}
	if c.BaseURL != "" && !isHTTP(c.BaseURL) {
		errs = append(errs, errors.New("MODEL_BASE_URL: not an http or https URL"))
	}
	if c.Timeout <= 0 || c.Timeout > maxTimeout {
		errs = append(errs, fmt.Errorf("MODEL_TIMEOUT: %s is not between 0 and %s", c.Timeout, maxTimeout))
	}
	if c.RetryFor < 0 {
		errs = append(errs, fmt.Errorf("MODEL_RETRY_FOR: %s is negative", c.RetryFor))
	}
	if c.MaxTokens < 0 {
		errs = append(errs, fmt.Errorf("MODEL_MAX_TOKENS: %d is negative", c.MaxTokens))
	}
	return errors.Join(errs...)
}

// ReplyConfig says what becomes of what the model said.
type ReplyConfig struct {
	MaxChars int     `env:"REPLY_MAX_CHARS" envDefault:"2000" help:"The most characters of an answer; the rest is cut off."`
	Priority float64 `env:"REPLY_PRIORITY" envDefault:"100" help:"Priority of the model's answer among an event's candidates: the lower wins. If a rule's candidate wins already, no model is asked."`
}

// Validate checks what the types cannot.
func (c ReplyConfig) Validate() error {
	var errs []error
	if c.MaxChars < 1 {
		errs = append(errs, fmt.Errorf("REPLY_MAX_CHARS: %d is less than 1", c.MaxChars))
	}
	if math.IsNaN(c.Priority) || math.IsInf(c.Priority, 0) { // has no form in JSON: no answer could be written
		errs = append(errs, fmt.Errorf("REPLY_PRIORITY: %v is not a finite number", c.Priority))
	}
	return errors.Join(errs...)
}

// Secret is a text that does not show itself, however it is printed or logged. Converting it to a string reveals it.
type Secret string

const redacted = "[secret]"

// String hides the secret from fmt.
func (Secret) String() string { return redacted }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return redacted }

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
