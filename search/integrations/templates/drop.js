"use strict";
const part = (id) => document.getElementById(id);
const classify = async (file) => {
  part("error").textContent = "";
  part("answer").replaceChildren();
  part("shown").src = URL.createObjectURL(file);
  part("shown").hidden = false;
  const reply = await fetch("predict", { method: "POST", body: file });
  const told = await reply.json().catch(() => ({ error: `the server answered ${reply.status}` }));
  if (!reply.ok) { part("error").textContent = told.error; return; }
  const ranked = Object.entries(told.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 10);
  for (const [name, share] of ranked) {
    const row = part("answer").insertRow();
    row.insertCell().textContent = name;
    const meter = document.createElement("meter");
    meter.value = share;
    row.insertCell().append(meter);
    row.insertCell().textContent = `${(100 * share).toFixed(1)}%`;
  }
};
part("file").addEventListener("change", (event) => {
  if (event.target.files[0]) classify(event.target.files[0]);
});
document.addEventListener("dragover", (event) => { event.preventDefault(); part("drop").classList.add("over"); });
document.addEventListener("dragleave", () => part("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  part("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) classify(event.dataTransfer.files[0]);
});
