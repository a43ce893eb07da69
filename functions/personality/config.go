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

// Config is the function's whole configuration, read from environment variables.
type Config struct {
	Deployment config.Deployment
	Egress     delivery.Config
	Prompt     PromptConfig
	Memory     MemoryConfig
	Model      ModelConfig
	Reply      ReplyConfig
}

// Composition is the way to combine the base prompt and the personalities into one instruction.
type Composition string

// The compositions. Without a personality text, each gives the base prompt alone.
const (
	Append  Composition = "append"  // the base prompt, then the personalities
	Prepend Composition = "prepend" // the personalities, then the base prompt
	Replace Composition = "replace" // the personalities alone
)

// PromptConfig configures the instruction and the question for the model.
type PromptConfig struct {
	Base           string        `env:"PERSONALITY_BASE_PROMPT" envDefault:"You are Parley, a member of a chat community. You answer briefly and kindly, in plain text." help:"Base instruction for every answer, independent of the personality."`
	Composition    Composition   `env:"PERSONALITY_COMPOSITION" envDefault:"append" help:"How personalities combine with the base prompt: append, prepend or replace."`
	MaxAnnotations int           `env:"PERSONALITY_MAX_ANNOTATIONS" envDefault:"5" help:"The largest number of personalities for one answer; further personalities are dropped."`
	MaxChars       int           `env:"PERSONALITY_MAX_CHARS" envDefault:"4000" help:"The largest number of characters of a personality's text; the rest is cut off."`
	MaxQuestion    int           `env:"PERSONALITY_MAX_QUESTION" envDefault:"4000" help:"The largest number of characters of a question; the rest is cut off."`
	CacheTTL       time.Duration `env:"PERSONALITY_CACHE_TTL" envDefault:"1m" help:"How long a personality, or its absence, is cached."`
	CommandPrefix  string        `env:"PERSONALITY_COMMAND_PREFIX" envDefault:"!" help:"Prefix of a command word, such as !ask. A leading command word is removed from the question. Empty: nothing is removed."`
	Mentions       []string      `env:"PERSONALITY_MENTIONS" envDefault:"@parley" help:"Names, separated by commas. A leading name is removed from the question."`
}

// Validate checks the ranges of the values.
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

// MemoryConfig configures the conversation memory of one user in one channel.
type MemoryConfig struct {
	Turns     int           `env:"MEMORY_TURNS" envDefault:"6" help:"How many earlier questions, with their answers, the model receives; 0 for none."`
	Retention time.Duration `env:"MEMORY_RETENTION" envDefault:"24h" help:"How long a conversation is kept after its last turn."`
}

// Validate checks the ranges of the values.
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

// maxTurns bounds a conversation. With maxRemembered characters in each half of a turn, a conversation stays well below
// the 1 MiB of a Firestore document (https://firebase.google.com/docs/firestore/quotas).
const maxTurns = 50

// The model providers.
const (
	ProviderEmbedded = "embedded"
	ProviderGemini   = "gemini"
	ProviderOpenAI   = "openai"
)

// ModelConfig selects and limits the model.
type ModelConfig struct {
	Provider  string        `env:"MODEL_PROVIDER" envDefault:"embedded" help:"The model provider: embedded (no network, no understanding), gemini, or openai (any endpoint with the OpenAI protocol)."`
	Name      string        `env:"MODEL_NAME" help:"The provider's name of the model. Required, except for embedded: model names are retired too often for a default."`
	BaseURL   string        `env:"MODEL_BASE_URL" help:"URL of the provider's API, if not the default: http://localhost:11434/v1 for example."`
	GeminiKey Secret        `env:"GEMINI_API_KEY" help:"Key of the Gemini API. Without a key, Gemini is called through Vertex AI as the service account."`
	OpenAIKey Secret        `env:"OPENAI_API_KEY" help:"Key of the OpenAI API, or of the endpoint at MODEL_BASE_URL if the endpoint requires a key."`
	Location  string        `env:"VERTEX_LOCATION" envDefault:"global" help:"Location of Vertex AI: global, or a region."`
	Timeout   time.Duration `env:"MODEL_TIMEOUT" envDefault:"30s" help:"Time limit of one model call; at most 60s."`
	RetryFor  time.Duration `env:"MODEL_RETRY_FOR" envDefault:"2m" help:"After a model failure a message is retried until it is this old, then dead-lettered as model_failed."`
	MaxTokens int           `env:"MODEL_MAX_TOKENS" envDefault:"1024" help:"Token limit of one answer, with the model's thoughts; 0 leaves the limit to the provider. Thoughts cut by the limit count as a model failure."`
}

// maxTimeout bounds MODEL_TIMEOUT. Of the subscription's acknowledgement deadline (120 s), enough time remains for
// publishing (30 s) and for Firestore.
const maxTimeout = 60 * time.Second

// Validate checks the ranges of the values.
func (c ModelConfig) Validate() error {
	var errs []error
	switch c.Provider {
	case ProviderEmbedded:
	case ProviderGemini, ProviderOpenAI:
		if c.Name == "" {
			errs = append(errs, fmt.Errorf("MODEL_NAME: required for MODEL_PROVIDER=%s", c.Provider))
		}
		if c.Provider == ProviderOpenAI && c.OpenAIKey == "" && c.BaseURL == "" {
			errs = append(errs, errors.New("OPENAI_API_KEY: required without MODEL_BASE_URL"))
		}
		if c.Provider == ProviderGemini && c.GeminiKey == "" && c.Location == "" {
			errs = append(errs, errors.New("VERTEX_LOCATION: required without GEMINI_API_KEY"))
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
	if c.MaxTokens < 0 || c.MaxTokens > math.MaxInt32 { // Gemini's limit has 32 bits
		errs = append(errs, fmt.Errorf("MODEL_MAX_TOKENS: %d is not between 0 and %d", c.MaxTokens, math.MaxInt32))
	}
	return errors.Join(errs...)
}

// ReplyConfig configures the conversion of a model's reply to an answer.
type ReplyConfig struct {
	MaxChars int     `env:"REPLY_MAX_CHARS" envDefault:"2000" help:"The largest number of characters of an answer; the rest is cut off."`
	Priority float64 `env:"REPLY_PRIORITY" envDefault:"100" help:"Priority of the model's answer among an event's candidates: the lowest wins. If a rule's candidate has a lower priority, no model is called."`
}

// Validate checks the ranges of the values.
func (c ReplyConfig) Validate() error {
	var errs []error
	if c.MaxChars < 1 {
		errs = append(errs, fmt.Errorf("REPLY_MAX_CHARS: %d is less than 1", c.MaxChars))
	}
	if math.IsNaN(c.Priority) || math.IsInf(c.Priority, 0) { // JSON cannot express such a value, and no answer could be sent
		errs = append(errs, fmt.Errorf("REPLY_PRIORITY: %v is not a finite number", c.Priority))
	}
	return errors.Join(errs...)
}

// Secret is a text hidden from logs, fmt and encoders. Conversion to string reveals the text.
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
