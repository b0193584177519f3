// The dialog that asks for the server's token.

const find = (id) => document.getElementById(id);

/** What the visitor gives; `wrong`: what was given before is not it. */
export async function askToken(wrong) {
  find("ask-title").textContent = wrong ? "That is not this server's token" : "This server asks for its token";
  find("token").value = "";
  find("ask").showModal();
  await new Promise((resolve) => find("ask").addEventListener("close", resolve, { once: true }));
  return find("token").value;
}
