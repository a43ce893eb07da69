// Command extract reduces the google provider's schema to the resources and data sources of a Terraform configuration.
// It reads the npm package @cdktf/provider-google, generated from the provider's schema. Each module of the package
// includes its TypeScript source. The source has each argument with its name, flags (required, optional, computed), type
// and nesting.
package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"parley.internal/terraform/check/schema"
)

func main() {
	dir := flag.String("dir", "terraform", "folder of the configuration")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if err := run(*dir, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "extract:", err)
		os.Exit(1)
	}
}

func run(dir, out string, args []string) error {
	if len(args) != 1 || out == "" {
		return errors.New("usage: extract -dir terraform -out google.json cdktf-provider-google-VERSION.tgz")
	}
	resources, dataSources, err := used(dir)
	if err != nil {
		return err
	}
	modules := map[string]string{"provider": ""}
	for _, r := range resources {
		modules[module("", r)] = ""
	}
	for _, d := range dataSources {
		modules[module("data-google-", d)] = ""
	}
	if err := read(args[0], modules); err != nil {
		return err
	}
	p := schema.Provider{Resources: map[string]*schema.Block{}, DataSources: map[string]*schema.Block{}}
	if p.Version, p.Config, err = configOf(modules["provider"]); err != nil {
		return fmt.Errorf("provider: %w", err)
	}
	for _, r := range resources {
		if p.Resources[r], err = resourceOf(modules[module("", r)], r); err != nil {
			return fmt.Errorf("resource %s: %w", r, err)
		}
	}
	for _, d := range dataSources {
		if p.DataSources[d], err = resourceOf(modules[module("data-google-", d)], d); err != nil {
			return fmt.Errorf("data source %s: %w", d, err)
		}
	}
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(compact(data), '\n'), 0o644)
}

// compact puts each attribute on one line, so that a changed attribute is one changed line.
func compact(data []byte) []byte {
	attribute := regexp.MustCompile(`\{\s+"type": [^{}]*?\}`)
	spaces := regexp.MustCompile(`\s+`)
	return attribute.ReplaceAllFunc(data, func(m []byte) []byte {
		return spaces.ReplaceAll(m, []byte(" "))
	})
}

func module(prefix, typeName string) string {
	return prefix + strings.ReplaceAll(strings.TrimPrefix(typeName, "google_"), "_", "-")
}

var usage = regexp.MustCompile(`(?m)^(resource|data) "(google_\w+)"`)

// used returns the resources and data sources of a configuration.
func used(dir string) (resources, dataSources []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil {
		return nil, nil, err
	}
	found := map[string]map[string]bool{"resource": {}, "data": {}}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, nil, err
		}
		for _, m := range usage.FindAllSubmatch(text, -1) {
			found[string(m[1])][string(m[2])] = true
		}
	}
	return slices.Sorted(maps.Keys(found["resource"])), slices.Sorted(maps.Keys(found["data"])), nil
}

// read sets the TypeScript source of each module in the map.
func read(archive string, modules map[string]string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	tr := tar.NewReader(gz)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(h.Name, "package/lib/")
		name, isIndex := strings.CutSuffix(name, "/index.js")
		if _, wanted := modules[name]; !ok || !isIndex || !wanted {
			continue
		}
		js, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		if modules[name], err = typescript(string(js)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, text := range modules {
		if text == "" {
			return fmt.Errorf("%s has no module %s: check the name of the resource", archive, name)
		}
	}
	return nil
}

// typescript returns the source of a compiled module from its source map.
func typescript(js string) (string, error) {
	_, encoded, ok := strings.Cut(js, "//# sourceMappingURL=data:application/json;base64,")
	if !ok {
		return "", errors.New("no source map")
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", fmt.Errorf("source map: %w", err)
	}
	var m struct{ SourcesContent []string }
	if err := json.Unmarshal(data, &m); err != nil || len(m.SourcesContent) != 1 {
		return "", fmt.Errorf("source map: want one source: %w", err)
	}
	return m.SourcesContent[0], nil
}

// source is the parsed TypeScript of a module.
type source struct {
	classes map[string]string    // body by name
	nesting map[string]nestingOf // by the name of the struct, or of the resource's class
}

// nestingOf has the nesting of each member of a struct: simple, map, list, set or struct, with a * for blocks.
type nestingOf map[string]string

var (
	topLevel    = regexp.MustCompile(`(?m)^export (class|function|interface) (\w+)`)
	nested      = regexp.MustCompile(`(?m)^ +(\w+): \{\n +value: .*\n +isBlock: (true|false),\n +type: "(\w+)",`)
	member      = regexp.MustCompile(`(?m)^  // (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n((?:.*\n){1,4})`)
	constructed = regexp.MustCompile(`= new ([\w.]+)\(this, "\w+"(?:, (?:true|false))?\)`)
	getter      = regexp.MustCompile(`return (?:cdktf\.Fn\.(to\w+)\()?this\.get(\w+)Attribute\(`)
	private     = regexp.MustCompile(`private _\w+\?: ([^;]+);`)
)

func take(text string) source {
	s := source{classes: map[string]string{}, nesting: map[string]nestingOf{}}
	found := topLevel.FindAllStringSubmatchIndex(text, -1)
	for i, m := range found {
		end := len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		kind, name, body := text[m[2]:m[3]], text[m[4]:m[5]], text[m[0]:end]
		of := name
		switch kind {
		case "class":
			s.classes[name] = body
		case "function":
			structName, ok := strings.CutSuffix(name, "ToHclTerraform")
			if !ok {
				continue
			}
			of = strings.ToUpper(structName[:1]) + structName[1:]
		default:
			continue
		}
		n := nestingOf{}
		for _, m := range nested.FindAllStringSubmatch(body, -1) {
			n[m[1]] = m[3]
			if m[2] == "true" {
				n[m[1]] += "*"
			}
		}
		if len(n) > 0 {
			s.nesting[of] = n
		}
	}
	return s
}

var resourceType = regexp.MustCompile(`tfResourceType = "(\w+)"`)

func resourceOf(text, name string) (*schema.Block, error) {
	s := take(text)
	for class, body := range s.classes {
		if m := resourceType.FindStringSubmatch(body); m != nil && m[1] == name {
			return s.block(class, class)
		}
	}
	return nil, errors.New("the module has no class of the resource")
}

// block returns the schema of a block from its class. of is the name of the struct.
func (s source) block(class, of string) (*schema.Block, error) {
	body, ok := s.classes[class]
	if !ok {
		return nil, fmt.Errorf("no class %s", class)
	}
	b := &schema.Block{Attributes: map[string]schema.Attribute{}, Blocks: map[string]schema.Nested{}}
	for _, m := range member.FindAllStringSubmatch(body, -1) {
		name, computed, optional, required, code := m[1], m[2] == "true", m[3] == "true", m[4] == "true", m[5]
		at := func(t schema.Type) {
			b.Attributes[name] = schema.Attribute{Type: t, Required: required, Optional: optional, Computed: computed}
		}
		c := constructed.FindStringSubmatch(code)
		if c == nil {
			t, err := simple(code)
			if err != nil {
				return nil, fmt.Errorf("%s.%s: %w", of, name, err)
			}
			at(t)
			continue
		}
		if t, ok := map[string]string{
			"cdktf.StringMap": `["map","string"]`, "cdktf.BooleanMap": `["map","bool"]`, "cdktf.NumberMap": `["map","number"]`,
		}[c[1]]; ok {
			at(schema.Type(t))
			continue
		}
		structName := strings.TrimSuffix(strings.TrimSuffix(c[1], "List"), "OutputReference")
		inner, err := s.block(structName+"OutputReference", structName)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", of, name, err)
		}
		if !optional && !required { // a value only from the provider is an attribute
			t, err := objects(inner)
			if err != nil {
				return nil, fmt.Errorf("%s.%s: %w", of, name, err)
			}
			at(t)
			continue
		}
		n := schema.Nested{Block: inner}
		switch nesting := s.nesting[of][name]; nesting {
		case "list*", "set*":
			n.Nesting = strings.TrimSuffix(nesting, "*")
		case "struct*":
			n.Nesting = "single"
		default:
			return nil, fmt.Errorf("%s.%s: nesting %q", of, name, nesting)
		}
		if required {
			n.Min = 1
		}
		if strings.HasSuffix(c[1], "OutputReference") && n.Nesting != "single" {
			n.Max = 1
		}
		b.Blocks[name] = n
	}
	if len(b.Attributes)+len(b.Blocks) == 0 && !strings.Contains(body, "isEmptyObject") {
		return nil, fmt.Errorf("class %s has no members", class)
	}
	return b, nil
}

func simple(code string) (schema.Type, error) {
	m := getter.FindStringSubmatch(code)
	if m == nil {
		return nil, fmt.Errorf("no type in %q", code)
	}
	t, ok := map[string]string{
		"String": `"string"`, "Number": `"number"`, "Boolean": `"bool"`,
		"List": `["list","string"]`, "NumberList": `["list","number"]`,
		"StringMap": `["map","string"]`, "NumberMap": `["map","number"]`, "BooleanMap": `["map","bool"]`,
	}[m[2]]
	if !ok {
		return nil, fmt.Errorf("unknown type of get%sAttribute", m[2])
	}
	if m[1] == "tolist" { // a set is read as a list
		t = strings.Replace(t, "list", "set", 1)
	}
	return schema.Type(t), nil
}

// objects returns the type of a list of objects with the attributes of a block.
func objects(b *schema.Block) (schema.Type, error) {
	if len(b.Blocks) > 0 {
		return nil, errors.New("a computed attribute holds blocks")
	}
	types := map[string]schema.Type{}
	for name, a := range b.Attributes {
		types[name] = a.Type
	}
	return json.Marshal([]any{"list", []any{"object", types}})
}

// configOf returns the provider's version and its simple arguments.
func configOf(text string) (version string, b *schema.Block, err error) {
	m := regexp.MustCompile(`providerVersion: '([\d.]+)'`).FindStringSubmatch(text)
	if m == nil {
		return "", nil, errors.New("no version")
	}
	b = &schema.Block{Attributes: map[string]schema.Attribute{}}
	for _, found := range member.FindAllStringSubmatch(text, -1) {
		p := private.FindStringSubmatch(found[5])
		if p == nil {
			continue
		}
		t, ok := map[string]string{
			"string": `"string"`, "number": `"number"`, "boolean | cdktf.IResolvable": `"bool"`,
			"string[]": `["list","string"]`, "{ [key: string]: string }": `["map","string"]`,
		}[p[1]]
		if !ok {
			continue // a block: batching, external_credentials
		}
		if strings.HasSuffix(found[1], "_custom_endpoint") {
			continue // hundreds of arguments for Google's internal use
		}
		b.Attributes[found[1]] = schema.Attribute{
			Type: schema.Type(t), Computed: found[2] == "true", Optional: found[3] == "true", Required: found[4] == "true",
		}
	}
	return m[1], b, nil
}
