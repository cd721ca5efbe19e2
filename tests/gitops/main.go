// gitops judges a Kubernetes object as Argo CD (Lua) and Flux (CEL) do, with the interpreters that they have built in.
//
//	gitops lua FILE < object.json   prints what the health check in FILE returns: {"status": …, "message": …}
//	gitops cel EXPRESSION < object.json   prints true or false
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/google/cel-go/cel"
	lua "github.com/yuin/gopher-lua"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("usage: gitops lua FILE | gitops cel EXPRESSION")
	}
	var object map[string]any
	if err := json.NewDecoder(os.Stdin).Decode(&object); err != nil {
		return err
	}
	switch arguments[0] {
	case "lua":
		return health(arguments[1], object)
	case "cel":
		return expression(arguments[1], object)
	}
	return errors.New("neither lua nor cel: " + arguments[0])
}

// As Argo CD: only the base library is open (and string, table, os in part), and the object is the global obj.
func health(file string, object map[string]any) error {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoFile(file); err != nil {
		return err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return errors.New("it returns no table")
	}
	text := func(key string) string { return lua.LVAsString(table.RawGetString(key)) }
	return json.NewEncoder(os.Stdout).Encode(map[string]string{"status": text("status"), "message": text("message")})
}

func value(state *lua.LState, one any) lua.LValue {
	switch one := one.(type) {
	case bool:
		return lua.LBool(one)
	case float64:
		return lua.LNumber(one)
	case string:
		return lua.LString(one)
	case []any:
		table := state.NewTable()
		for _, element := range one {
			table.Append(value(state, element))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, element := range one {
			table.RawSetString(key, value(state, element))
		}
		return table
	}
	return lua.LNil
}

// As Flux: the fields of the object are the variables, and nothing is known of their types.
func expression(text string, object map[string]any) error {
	environment, err := cel.NewEnv(cel.OptionalTypes())
	if err != nil {
		return err
	}
	parsed, issues := environment.Parse(text)
	if issues.Err() != nil {
		return issues.Err()
	}
	program, err := environment.Program(parsed)
	if err != nil {
		return err
	}
	result, _, err := program.Eval(object)
	if err != nil {
		return err
	}
	fmt.Println(result.Value())
	return nil
}
