import { mount } from "svelte";

import Ops from "./Ops.svelte";
import "./style.css";

mount(Ops, { target: document.getElementById("app") as HTMLElement });
