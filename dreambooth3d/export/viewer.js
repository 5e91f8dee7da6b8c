"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

// Turntable: one picture holds all frames, row by row.
function turntable() {
  const canvas = byId("frame"), slider = byId("slider"), play = byId("play");
  const { count, columns, tile, image, frames_per_second: speed } = data.turntable;
  const sprite = new Image();
  let timer = 0;
  canvas.width = canvas.height = tile;
  slider.max = count - 1;
  const show = () => {
    const index = Number(slider.value), degrees = Math.round((index * 360) / count);
    canvas.getContext("2d").drawImage(
      sprite, (index % columns) * tile, Math.floor(index / columns) * tile, tile, tile, 0, 0, tile, tile);
    byId("angle").textContent = `${degrees}°`;
    slider.setAttribute("aria-valuetext", `${degrees} degrees`);
  };
  const run = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => { slider.value = (Number(slider.value) + 1) % count; show(); }, 1000 / speed) : 0;
    play.setAttribute("aria-pressed", String(on));
    play.textContent = on ? "Pause" : "Play";
  };
  slider.addEventListener("input", () => { run(false); show(); });
  play.addEventListener("click", () => run(!timer));
  sprite.onload = () => { show(); run(!calm); };
  sprite.src = image;
}

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// The files that the page carries along.
function downloads() {
  for (const button of document.querySelectorAll("button.save")) {
    button.addEventListener("click", () => {
      const name = button.dataset.file, { kind, content } = data.files[name], link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([bytesOf(content)], { type: kind }));
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
}

// GLB: a header, a JSON chunk, a binary chunk.
function parseGlb(base64) {
  const bytes = bytesOf(base64);
  const view = new DataView(bytes.buffer), jsonLength = view.getUint32(12, true);
  const tree = JSON.parse(new TextDecoder().decode(bytes.subarray(20, 20 + jsonLength)));
  const start = 20 + jsonLength + 8;
  const types = { 5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array };
  const widths = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };
  const read = (index) => {
    const accessor = tree.accessors[index], part = tree.bufferViews[accessor.bufferView];
    const offset = start + (part.byteOffset || 0) + (accessor.byteOffset || 0), width = widths[accessor.type];
    const Type = types[accessor.componentType], length = accessor.count * width;
    const values = new Type(bytes.buffer.slice(offset, offset + length * Type.BYTES_PER_ELEMENT));
    return { values, width, type: accessor.componentType };
  };
  const primitive = tree.meshes[0].primitives[0], attributes = primitive.attributes;
  const maybe = (index) => (index === undefined ? null : read(index));
  return {
    position: read(attributes.POSITION), normal: read(attributes.NORMAL), color: maybe(attributes.COLOR_0),
    uv: maybe(attributes.TEXCOORD_0), index: read(primitive.indices), picture: baseColor(tree, primitive, bytes, start),
  };
}

// The picture of the base colour as a blob, or null.
function baseColor(tree, { material }, bytes, start) {
  const paint = material === undefined ? undefined : tree.materials[material].pbrMetallicRoughness.baseColorTexture;
  if (!paint) return null;
  const image = tree.images[tree.textures[paint.index].source], part = tree.bufferViews[image.bufferView];
  const offset = start + (part.byteOffset || 0);
  return new Blob([bytes.subarray(offset, offset + part.byteLength)], { type: image.mimeType });
}

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec4 color; in vec2 uv;
uniform mat4 camera; uniform mat4 lens;
out vec3 facing; out vec3 place; out vec3 paint; out vec2 spot;
void main() {
  vec4 seen = camera * vec4(position, 1.0);
  facing = mat3(camera) * normal; place = seen.xyz; paint = color.rgb; spot = uv;
  gl_Position = lens * seen;
}`;
// Vertex colours are linear, as glTF wants them, and the sampler makes the texture's so; the screen wants sRGB. The
// light goes with the camera.
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 facing; in vec3 place; in vec3 paint; in vec2 spot;
uniform float clay; uniform sampler2D picture; out vec4 pixel;
void main() {
  vec3 n = normalize(facing), eye = normalize(-place), key = normalize(vec3(-0.45, 0.75, 0.75));
  float sky = 0.5 + 0.5 * n.y, rim = pow(1.0 - max(dot(n, eye), 0.0), 3.0);
  float light = 0.42 + 0.22 * sky + 0.5 * max(dot(n, key), 0.0);
  float shine = pow(max(dot(n, normalize(key + eye)), 0.0), 40.0) * 0.08;
  vec3 lit = mix(paint * texture(picture, spot).rgb, vec3(0.42), clay) * light + shine + rim * 0.04;
  vec3 curved = mix(12.92 * lit, 1.055 * pow(max(lit, 0.0031), vec3(1.0 / 2.4)) - 0.055, step(0.0031308, lit));
  pixel = vec4(clamp(curved, 0.0, 1.0), 1.0);
}`;

function program(gl) {
  const result = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(result, shader);
  }
  gl.linkProgram(result);
  if (!gl.getProgramParameter(result, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(result));
  gl.useProgram(result);
  return result;
}

function upload(gl, shader, mesh) {
  for (const name of ["position", "normal", "color", "uv"]) {
    const slot = gl.getAttribLocation(shader, name);
    if (!mesh[name]) { gl.vertexAttrib4f(slot, 1, 1, 1, 1); continue; }
    const { values, width, type } = mesh[name];
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, width, type, type !== gl.FLOAT, 0, 0);
  }
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.index.values, gl.STATIC_DRAW);
}

// White until the picture is there; then `done` is called.
function paint(gl, picture, done) {
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array([255, 255, 255, 255]));
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  if (!picture) return;
  createImageBitmap(picture, { colorSpaceConversion: "none", premultiplyAlpha: "none" }).then((image) => {
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.SRGB8_ALPHA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    done();
  }).catch(console.warn);
}

// Centre and radius of the mesh, so that every asset fills the stage.
function extent({ values }) {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    low[i % 3] = Math.min(low[i % 3], values[i]);
    high[i % 3] = Math.max(high[i % 3], values[i]);
  }
  const centre = low.map((value, k) => (value + high[k]) / 2);
  return { centre, radius: Math.hypot(...low.map((value, k) => (high[k] - value) / 2)) || 1 };
}

// World to camera for an orbit around `centre`; azimuth 0 looks at the front (+z), columns as WebGL wants them.
function orbit(azimuth, elevation, distance, centre) {
  const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
  const right = [ca, 0, -sa], up = [-se * sa, ce, -se * ca], back = [ce * sa, se, ce * ca];
  const along = (axis) => -(axis[0] * centre[0] + axis[1] * centre[1] + axis[2] * centre[2]);
  return [right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
    along(right), along(up), along(back) - distance, 1];
}

function perspective(width, height, near, far) {
  const f = 1 / Math.tan((17 * Math.PI) / 180), narrow = Math.min(1, width / height);
  return [(f * narrow * height) / width, 0, 0, 0, 0, f * narrow, 0, 0,
    0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0];
}

function viewer() {
  const canvas = byId("view"), gl = canvas.getContext("webgl2", { alpha: true, antialias: true });
  if (!gl) throw new Error("WebGL 2 is missing");
  const mesh = parseGlb(data.files["asset.glb"].content), shader = program(gl), { centre, radius } = extent(mesh.position);
  upload(gl, shader, mesh);
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.CULL_FACE);
  const home = { azimuth: 0.5, elevation: 0.26, zoom: 1 }, state = { ...home, spin: !calm, clay: 0 };
  const uniform = (name) => gl.getUniformLocation(shader, name);
  const slots = { camera: uniform("camera"), lens: uniform("lens"), clay: uniform("clay") };

  function draw() {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const distance = (3.35 * radius) / state.zoom;
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix4fv(slots.camera, false, orbit(state.azimuth, state.elevation, distance, centre));
    gl.uniformMatrix4fv(slots.lens, false, perspective(width, height, radius * 0.05, distance + 2 * radius));
    gl.uniform1f(slots.clay, state.clay);
    gl.drawElements(gl.TRIANGLES, mesh.index.values.length, mesh.index.type, 0);
  }
  let asked = false, before = 0;
  const redraw = () => { if (!asked) { asked = true; requestAnimationFrame(tick); } };
  function tick(now) {
    asked = false;
    if (state.spin) { state.azimuth += Math.min(now - before, 50) * 0.0005; redraw(); }
    before = now;
    draw();
  }
  const spin = (on) => { state.spin = on; byId("spin").setAttribute("aria-pressed", String(on)); redraw(); };
  const turn = (dx, dy) => {
    state.azimuth -= dx;
    state.elevation = Math.max(-1.45, Math.min(1.45, state.elevation + dy));
    spin(false);
  };
  const zoom = (factor) => { state.zoom = Math.max(0.4, Math.min(6, state.zoom * factor)); redraw(); };
  paint(gl, mesh.picture, redraw);
  controls(canvas, turn, zoom);
  byId("spin").addEventListener("click", () => spin(!state.spin));
  byId("reset").addEventListener("click", () => { Object.assign(state, home); spin(!calm); });
  byId("clay").addEventListener("click", (event) => {
    state.clay = 1 - state.clay;
    event.currentTarget.setAttribute("aria-pressed", String(state.clay === 1));
    redraw();
  });
  canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); showFallback(); });
  new ResizeObserver(redraw).observe(canvas);
  spin(state.spin);
}

// Mouse, touch (two fingers zoom) and keyboard.
function controls(canvas, turn, zoom) {
  const fingers = new Map();
  const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const wide = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 2) zoom(spread() / Math.max(wide, 1));
    else turn((event.clientX - last.x) * 0.009, (event.clientY - last.y) * 0.009);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0012));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => turn(-0.12, 0), ArrowRight: () => turn(0.12, 0), ArrowUp: () => turn(0, 0.12),
    ArrowDown: () => turn(0, -0.12), "+": () => zoom(1.15), "=": () => zoom(1.15), "-": () => zoom(1 / 1.15),
  };
  canvas.addEventListener("keydown", (event) => {
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
}

// Without WebGL the turntable takes the place of the 3D view.
function showFallback() {
  byId("stage").replaceWith(byId("turntable"));
  byId("fallback").hidden = false;
}

turntable();
downloads();
try { viewer(); } catch (error) { console.warn(error); showFallback(); }
