// Package parts knows which environment variables each deployed part reads, from the part's own configuration type, and
// who sets which of them.
package parts

import (
	"fmt"
	"maps"
	"slices"

	"parley.internal/functions/dlq"
	"parley.internal/functions/enrichment"
	"parley.internal/functions/personality"
	"parley.internal/functions/whisper"
	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
)

// part is what is known of a configuration type.
type part struct {
	describe func() []config.Variable
	load     func(environ []string) error
}

func of[T any]() part {
	return part{describe: config.Describe[T], load: func(environ []string) error {
		_, err := config.Load[T](environ)
		return err
	}}
}

// The parts, by the names that the topology and Terraform give them. A new one is added here.
var all = map[string]part{
	"dlq":         of[dlq.Config](),
	"enrichment":  of[enrichment.Config](),
	"gateway":     of[instance.Config](),
	"personality": of[personality.Config](),
	"whisper":     of[whisper.Config](),
}

// Variables are the environment variables that each part reads.
func Variables() map[string][]config.Variable {
	vars := map[string][]config.Variable{}
	for name, p := range all {
		vars[name] = p.describe()
	}
	return vars
}

// Validate says whether a part would start with an environment in the form of os.Environ.
func Validate(name string, environ []string) error {
	p, ok := all[name]
	if !ok {
		return fmt.Errorf("there is no part %q", name)
	}
	return p.load(environ)
}

// Setter says who sets a variable that a deployment's owner does not set by var.environment.
type Setter string

// The setters.
const (
	Terraform Setter = "terraform" // from another variable of the configuration
	Secret    Setter = "secret"    // from Secret Manager: never in the clear
	Platform  Setter = "platform"  // Cloud Run, or nobody there
)

// Reserved are the variables that var.environment must not set.
var Reserved = map[string]Setter{
	"GOOGLE_CLOUD_PROJECT":  Terraform,
	"FIRESTORE_DATABASE":    Terraform,
	"BUS_PREFIX":            Terraform,
	"LOG_LEVEL":             Terraform,
	"MODEL_PROVIDER":        Terraform,
	"MODEL_NAME":            Terraform,
	"WS_MAX_CONNECTIONS":    Terraform,
	"CREDENTIAL_KEY":        Terraform,
	"TWITCH_CLIENT_ID":      Terraform,
	"TWITCH_BOT_USER_ID":    Terraform,
	"TWITCH_CHANNELS":       Terraform,
	"OAUTH_ALLOWED_USERS":   Terraform,
	"PUBLIC_URL":            Terraform,
	"DISCORD_ROLES":         Terraform,
	"GEMINI_API_KEY":        Secret,
	"OPENAI_API_KEY":        Secret,
	"DISCORD_BOT_TOKEN":     Secret,
	"TWITCH_CLIENT_SECRET":  Secret,
	"OAUTH_OPERATOR_SECRET": Secret,
	"LOG_FORMAT":            Platform, // alerts read the log's JSON
	"PORT":                  Platform,
	"LISTEN_ADDR":           Platform,
	"K_SERVICE":             Platform,
}

// Settable are the names, in order, of what var.environment may set of each part.
func Settable() map[string][]string {
	settable := map[string][]string{}
	for part, vars := range Variables() {
		names := map[string]bool{}
		for _, v := range vars {
			if _, reserved := Reserved[v.Name]; !reserved {
				names[v.Name] = true
			}
		}
		settable[part] = slices.Sorted(maps.Keys(names))
	}
	return settable
}
