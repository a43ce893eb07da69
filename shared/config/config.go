// Package config reads the configuration of a part from environment variables into one struct, validates all values
// before the part starts, and reports all errors together. Start with [Load].
//
// The tags of a field are `env` for the variable's name, `envDefault` for the default and `help` for the description. The
// options `,required` and `,notEmpty` work as in github.com/caarlos0/env. A struct, also an embedded struct, may have a
// method Validate() error for rules beyond types. Validate joins several errors with errors.Join, and each error begins
// with the variable's name and a colon.
package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caarlos0/env/v11"

	"parley.internal/shared/topology"
)

// Deployment is the configuration that all parts share: project, database, prefix and logging.
type Deployment struct {
	Project   string          `env:"GOOGLE_CLOUD_PROJECT,required,notEmpty" help:"Google Cloud project that holds the topics and the database."`
	Database  string          `env:"FIRESTORE_DATABASE" envDefault:"(default)" help:"Firestore database."`
	Prefix    topology.Prefix `env:"BUS_PREFIX" help:"Prefix of every topic and subscription name, such as staging. (several deployments can then share a project)."`
	LogFormat string          `env:"LOG_FORMAT" envDefault:"json" help:"json (for Cloud Logging) or text (for a terminal)."`
	LogLevel  string          `env:"LOG_LEVEL" envDefault:"info" help:"Minimum severity of the log: debug, info, warn or error."`
}

// Validate checks the log format and the log level.
func (d Deployment) Validate() error {
	var errs []error
	if d.LogFormat != "json" && d.LogFormat != "text" {
		errs = append(errs, fmt.Errorf("LOG_FORMAT: %q is not json or text", d.LogFormat))
	}
	switch d.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		errs = append(errs, fmt.Errorf("LOG_LEVEL: %q is not debug, info, warn or error", d.LogLevel))
	}
	return errors.Join(errs...)
}

// Load reads T from an environment in the form of os.Environ. The error joins one error for each missing or invalid
// variable.
func Load[T any](environ []string) (T, error) {
	var c T
	var errs []error
	unread := map[string]bool{} // variables without a value of the right type; Validate's errors about them are dropped
	values := env.ToMap(environ)
	delete(values, "") // the library would take an entry without a name for the value of every inner struct
	if err := env.ParseWithOptions(&c, env.Options{Environment: values}); err != nil {
		var several env.AggregateError
		if errors.As(err, &several) {
			for _, e := range several.Errors {
				e = readable[T](e)
				errs = append(errs, e)
				unread[variableOf(e)] = true
			}
		} else {
			errs = append(errs, err)
		}
	}
	for _, e := range validate(reflect.ValueOf(c)) {
		if !unread[variableOf(e)] {
			errs = append(errs, e)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("configuration:\n%w", err)
	}
	return c, nil
}

// variableOf returns the variable name at the beginning of an error.
func variableOf(err error) string {
	name, _, _ := strings.Cut(err.Error(), ":")
	return name
}

// readable rewrites an error of the library: the library names the field, and the result names the variable.
func readable[T any](err error) error {
	var pe env.ParseError
	if errors.As(err, &pe) {
		for _, v := range Describe[T]() {
			if v.field == pe.Name {
				return fmt.Errorf("%s: %w", v.Name, plain(pe))
			}
		}
	}
	var unset env.VarIsNotSetError
	if errors.As(err, &unset) {
		return fmt.Errorf("%s: required, but not set", unset.Key)
	}
	var empty env.EmptyVarError
	if errors.As(err, &empty) {
		return fmt.Errorf("%s: must not be empty", empty.Key)
	}
	return err
}

// plain explains an invalid value without Go's type names.
func plain(pe env.ParseError) error {
	if pe.Type == reflect.TypeFor[time.Duration]() {
		return fmt.Errorf("not a duration such as 30s or 5m: %w", pe.Err)
	}
	if ne, ok := errors.AsType[*strconv.NumError](pe.Err); ok {
		if errors.Is(ne, strconv.ErrRange) {
			return fmt.Errorf("%q is out of range", ne.Num)
		}
		want := "a number"
		switch pe.Type.Kind() {
		case reflect.Bool:
			want = "true or false"
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			want = "a whole number"
		case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			want = "a whole number that is not negative"
		}
		return fmt.Errorf("%q is not %s", ne.Num, want)
	}
	return pe.Err
}

// validate calls every Validate method in the tree of structs, inner structs first. It removes repeated errors: a struct
// may inherit Validate from an embedded struct, or call the Validate methods of its fields.
func validate(v reflect.Value) []error {
	var errs []error
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && f.Type.Kind() == reflect.Struct && f.Tag.Get("env") == "" {
			errs = append(errs, validate(v.Field(i))...)
		}
	}
	if c, ok := v.Interface().(interface{ Validate() error }); ok {
		errs = append(errs, flatten(c.Validate())...)
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(errs, func(err error) bool {
		repeated := seen[err.Error()]
		seen[err.Error()] = true
		return repeated
	})
}

// flatten returns the single errors of a joined error.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, flatten(e)...)
	}
	return errs
}

// Variable describes one environment variable of a part.
type Variable struct {
	Name     string
	Default  string // empty for no default
	Required bool
	Help     string
	field    string
}

// Describe lists the variables of T in the order of the fields.
func Describe[T any]() []Variable { return describe(reflect.TypeFor[T]()) }

func describe(t reflect.Type) []Variable {
	var vars []Variable
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("env"), ",")
		if name == "" {
			if f.Type.Kind() == reflect.Struct && f.IsExported() {
				vars = append(vars, describe(f.Type)...)
			}
			continue
		}
		vars = append(vars, Variable{
			Name: name, Default: f.Tag.Get("envDefault"), Help: f.Tag.Get("help"), field: f.Name,
			Required: strings.Contains(options, "required") || strings.Contains(options, "notEmpty"),
		})
	}
	return vars
}

// Usage writes the variables of T as a table, for the --help of a command.
func Usage[T any](w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range Describe[T]() {
		note := v.Help
		switch {
		case v.Required:
			note += " Required."
		case v.Default != "":
			note += " Default: " + v.Default + "."
		}
		fmt.Fprintf(tw, "  %s\t%s\n", v.Name, note)
	}
	return tw.Flush()
}
